// A daemon's view made by hand for tests of the server and of the page: real screens, whose pictures the
// test draws, and inputs that write down what they are told.

import type {
  ControlAction,
  DaemonStatus,
  GuestState,
  ServiceStatus,
} from '../../src/daemon/status.ts';
import type { DaemonView, GuestControls } from '../../src/daemon/view.ts';
import type { GuestInput, Touch } from '../../src/input/guest-input.ts';
import { BrowserOutput } from '../../src/outputs/browser/browser-output.ts';
import type { Screen } from '../../src/outputs/screen.ts';
import { UsageError } from '../../src/runtime/errors.ts';
import type { Runtime } from '../../src/runtime/runtime.ts';
import { type DomId, domId } from '../../src/xen/ids.ts';
import { DEFAULT_BUDGET } from '../../src/zcopy/budget.ts';
import { connectorInfo } from '../outputs/pictures.ts';

/** What was sent to a guest, one readable line per event. */
export class RecordingInput implements GuestInput {
  state: GuestInput['state'] = 'connected';
  area = { width: 640, height: 480 };
  readonly events: string[] = [];

  key(code: number, pressed: boolean): void {
    this.events.push(`key ${code} ${pressed ? 'down' : 'up'}`);
  }

  motion(dx: number, dy: number): void {
    this.events.push(`motion ${dx} ${dy}`);
  }

  position(x: number, y: number): void {
    this.events.push(`position ${x} ${y}`);
  }

  wheel(delta: number): void {
    this.events.push(`wheel ${delta}`);
  }

  touch({ contact, phase, x, y }: Touch): void {
    this.events.push(`touch ${contact} ${phase} ${x} ${y}`);
  }

  releaseAll(): void {
    this.events.push('release all');
  }
}

export interface ScriptedGuest {
  readonly domid: DomId;
  name: string;
  state: GuestState;
  readonly input: RecordingInput;
  services: readonly ServiceStatus[];
  held: Record<string, number>;
  readonly refused: Record<string, number>;
  readonly throttled: Record<string, number>;
}

const HELD = {
  pages: 2025,
  refs: 2025,
  mappings: 3,
  ports: 3,
  watches: 4,
  buffers: 2,
  framebuffers: 2,
};

export class ScriptedView implements DaemonView {
  readonly output: BrowserOutput;
  readonly guests = new Map<DomId, ScriptedGuest>();
  readonly acts: string[] = [];
  controls: GuestControls | undefined;
  readonly #listeners = new Set<() => void>();

  constructor(runtime: Runtime) {
    this.output = new BrowserOutput({ runtime, onChange: () => this.changed() });
  }

  /** Adds a guest without displays. */
  addGuest(domid: number, name: string): ScriptedGuest {
    const guest: ScriptedGuest = {
      domid: domId(domid),
      name,
      state: 'connected',
      input: new RecordingInput(),
      services: [],
      held: { ...HELD, quarantinedPages: 0 },
      refused: {},
      throttled: {},
    };
    this.guests.set(guest.domid, guest);
    this.changed();
    return guest;
  }

  connect(domid: number, index = 0): Promise<Screen> {
    return this.output.connect(connectorInfo({ domid, index }));
  }

  /** Offers the actions of the demo, which are written down. */
  offerControls(): void {
    this.controls = {
      guests: [],
      act: async (domid: DomId, action: ControlAction) => {
        const guest = this.guests.get(domid)!;
        if (action !== 'restart' && guest.state !== 'connected') {
          throw new UsageError(`guest ${domid} is ${guest.state}`);
        }
        this.acts.push(`${action} ${domid}`);
        guest.state =
          action === 'restart' ? 'connected' : action === 'stop' ? 'stopped' : 'crashed';
        guest.held = Object.fromEntries(Object.keys(guest.held).map((kind) => [kind, 0]));
        if (action === 'restart') guest.held = { ...HELD, quarantinedPages: 0 };
        this.changed();
      },
    };
  }

  changed(): void {
    for (const listener of this.#listeners) listener();
  }

  status(): DaemonStatus {
    return {
      guests: [...this.guests.values()].map((guest) => ({
        ...guest,
        displays: [...this.output.screens]
          .filter(({ info }) => info.domid === guest.domid)
          .map(displayStatus),
        input: { state: guest.input.state, area: guest.input.area },
        budget: DEFAULT_BUDGET,
        buffers: [],
      })),
      host: {
        provider: 'scripted',
        paths: { 'map-grants': { available: true, reason: 'the test draws' } },
      },
      controls: this.controls ? ['stop', 'crash', 'restart'] : [],
    };
  }

  nameOf(domid: DomId): string | undefined {
    return this.guests.get(domid)?.name;
  }

  screen(domid: DomId, connector: number): Screen | undefined {
    return this.output.screen(domid, connector);
  }

  input(domid: DomId): GuestInput | undefined {
    return this.guests.get(domid)?.input;
  }

  onChange(listener: () => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => this.#listeners.delete(listener) };
  }
}

function displayStatus(screen: Screen) {
  const { info, shown } = screen;
  return {
    devid: 0,
    connector: info.index,
    uniqueId: info.uniqueId,
    width: shown?.width ?? info.width,
    height: shown?.height ?? info.height,
    format: shown?.format.name ?? null,
    flips: 0,
    flipsPerSecond: 0,
    flipLatencyMs: null,
    viewLatencyMs: screen.viewLatencyMs ?? null,
    bytesCopied: screen.bytesCopied,
    path: 'browser',
    viewers: screen.viewers,
  };
}
