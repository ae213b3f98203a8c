// The demo as a process of its own, as `npm start` runs it, and what tests ask of it over HTTP.

import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';
import type { ControlAction, GuestStatus } from '../../src/daemon/status.ts';
import { type Pixels, ServiceProcess } from './service-process.ts';

const main = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));

export type { Pixels } from './service-process.ts';

export class DemoProcess extends ServiceProcess {
  /** Starts the demo on a free port and waits until it says that it is ready. */
  static start(...args: string[]): Promise<DemoProcess> {
    const service = ['demo', '--json', '--listen', '127.0.0.1:0', '--log-level', 'warn'];
    return new DemoProcess([main, ...service, ...args]).started();
  }

  /** The guest, once its picture is on its screen and its keyboard is connected. */
  ready(name: string): Promise<GuestStatus> {
    return this.guestWhen(
      name,
      ({ displays, input }) => displays[0]?.format != null && input.state === 'connected',
    );
  }

  async picture(guest: GuestStatus): Promise<Pixels> {
    const picture = await this.pictureNow(guest);
    assert(picture, `${guest.name} shows nothing`);
    return picture;
  }

  async control({ domid }: GuestStatus, action: ControlAction): Promise<void> {
    const body = JSON.stringify({ action });
    const response = await this.fetch(`/api/guests/${domid}/control`, { method: 'POST', body });
    assert(response.ok, `${response.status} ${await response.text()}`);
  }
}
