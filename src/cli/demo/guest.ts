// A guest of the demo, in its own thread: a PV display and a PV keyboard with a program between them.
//
// The program draws into one of two buffers while the other one is shown; a page flip shows it, and its
// completion, paced by the output, is when the next frame is drawn. When nothing changed, nothing happens
// until the keyboard or the pointer says something.

import { DisplayFrontend } from '../../display/frontend.ts';
import type { GuestDisplay, GuestFramebuffer } from '../../display/guest-display.ts';
import { enterGuest } from '../../hypervisor/worker/enter-guest.ts';
import { KeyboardFrontend, type KeyboardHandlers } from '../../input/frontend.ts';
import { messageOf } from '../../runtime/errors.ts';
import type { Runtime } from '../../runtime/runtime.ts';
import type { Program } from './program.ts';
import { Sketch } from './sketch.ts';
import { Surface } from './surface.ts';
import { TestCard } from './test-card.ts';

const PROGRAMS = {
  'test-card': (name: string): Program => new TestCard(name),
  sketch: (name: string): Program => new Sketch(name),
};

export type ProgramName = keyof typeof PROGRAMS;

/** What the machine hands to a guest. */
export interface GuestArguments {
  readonly program: ProgramName;
}

/** The connector that the program's picture is on. */
const CONNECTOR = 0;

/** Plays a program on each display that the backend connects. */
class Player {
  readonly #runtime: Runtime;
  readonly #program: Program;
  #display: GuestDisplay | undefined;
  #wake: () => void = () => {};

  constructor(runtime: Runtime, program: Program) {
    this.#runtime = runtime;
    this.#program = program;
  }

  /** What the program is told of; afterwards there may be something to draw. */
  readonly handlers: KeyboardHandlers = {
    key: (code, pressed) => {
      this.#program.key(code, pressed);
      this.#wake();
    },
    position: (x, y) => {
      this.#program.position(x, y);
      this.#wake();
    },
  };

  readonly onConnected = (display: GuestDisplay): void => {
    this.#display = display;
    this.#play(display).catch((error: unknown) => {
      if (this.#display !== display) return;
      this.#runtime.log.error({ reason: messageOf(error) }, 'the display failed');
    });
  };

  readonly onDisconnected = (): void => {
    this.#display = undefined;
    this.#wake();
  };

  async #play(display: GuestDisplay): Promise<void> {
    const framebuffers = [await this.#framebuffer(display), await this.#framebuffer(display)];
    const surfaces = framebuffers.map(({ buffer }) => new Surface(buffer));
    for (const surface of surfaces) this.#program.paint(surface);
    await display.setMode(CONNECTOR, framebuffers[0]);
    let index = 1;
    for (let number = 0; this.#display === display; ) {
      const frame = { surface: surfaces[index]!, index, number, wallMs: this.#runtime.wallMs() };
      if (this.#program.draw(frame)) {
        await display.flipped(CONNECTOR, framebuffers[index]!);
        number += 1;
        index = 1 - index;
      } else {
        await this.#change();
      }
    }
  }

  async #framebuffer(display: GuestDisplay): Promise<GuestFramebuffer> {
    const { width, height } = display.connectors[CONNECTOR]!;
    const { format } = this.#program;
    return display.attach(await display.createBuffer({ width, height, format }));
  }

  #change(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }
}

const guest = await enterGuest();
const { domain, runtime, name } = guest;
const program = PROGRAMS[(guest.arguments as GuestArguments).program](name);
const player = new Player(runtime, program);
const { onConnected, onDisconnected, handlers } = player;
const display = await DisplayFrontend.open({ runtime, domain, onConnected, onDisconnected });
const keyboard = await KeyboardFrontend.open({ runtime, domain, handlers });
const reason = await guest.shutdownRequested;
await keyboard.close();
await display.close();
await guest.shutdown(reason);
