// The daemon as the bearer of a token finds it: guests out of its reach are not there, in no list and under
// no number, so that nothing above this can pass them on by mistake. Who is in reach is asked each time.

import type { ControlAction, DaemonStatus } from '../daemon/status.ts';
import type { DaemonView, GuestControls, KnownGuest } from '../daemon/view.ts';
import type { GuestInput } from '../input/guest-input.ts';
import type { Screen } from '../outputs/screen.ts';
import type { DomId } from '../xen/ids.ts';
import { HttpError } from './http-error.ts';
import type { Permit } from './permit.ts';
import type { ServedStatus } from './served-status.ts';

export class PermittedView implements DaemonView {
  readonly controls: GuestControls | undefined;
  readonly permit: Permit;
  readonly #view: DaemonView;

  constructor(view: DaemonView, permit: Permit) {
    this.#view = view;
    this.permit = permit;
    this.controls = view.controls && new PermittedControls(view.controls, this);
  }

  status(): DaemonStatus {
    const { guests, host, controls } = this.#view.status();
    return {
      guests: guests.filter((guest) => this.permit.reaches(guest)),
      host: this.permit.limited ? withoutOutput(host) : host,
      controls: this.permit.viewOnly ? [] : controls,
    };
  }

  /** What is told to the bearer. */
  served(): ServedStatus {
    const { limited, viewOnly } = this.permit;
    return { ...this.status(), access: { limited, viewOnly } };
  }

  nameOf(domid: DomId): string | undefined {
    const name = this.#view.nameOf(domid);
    return name !== undefined && this.permit.reaches({ domid, name }) ? name : undefined;
  }

  screen(domid: DomId, connector: number): Screen | undefined {
    return this.nameOf(domid) === undefined ? undefined : this.#view.screen(domid, connector);
  }

  input(domid: DomId): GuestInput | undefined {
    return this.nameOf(domid) === undefined ? undefined : this.#view.input(domid);
  }

  onChange(listener: () => void): Disposable {
    return this.#view.onChange(listener);
  }
}

/** Starting and stopping those guests that a view has. */
class PermittedControls implements GuestControls {
  readonly #controls: GuestControls;
  readonly #view: PermittedView;

  constructor(controls: GuestControls, view: PermittedView) {
    this.#controls = controls;
    this.#view = view;
  }

  get guests(): readonly KnownGuest[] {
    return this.#controls.guests.filter(({ domid }) => this.#view.nameOf(domid) !== undefined);
  }

  /** @throws HttpError 404 for a guest that the view does not have, or what the controls throw */
  async act(domid: DomId, action: ControlAction): Promise<void> {
    if (this.#view.nameOf(domid) === undefined) {
      throw new HttpError(404, `there is no guest ${domid}`);
    }
    await this.#controls.act(domid, action);
  }
}

/** The host without what its output tells of other guests: which of them are on which monitors. */
function withoutOutput({ provider, paths }: DaemonStatus['host']): DaemonStatus['host'] {
  return { provider, paths };
}
