// A tunnel to a local server that lets only so much through, as a person far away has it.

import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { type Runtime, sleep } from '../../src/runtime/runtime.ts';

export class SlowLink implements AsyncDisposable {
  /** Bytes that the server sent through the tunnel so far. */
  bytes = 0;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(
    runtime: Runtime,
    { port, bytesPerMs }: { port: number; bytesPerMs: number },
  ) {
    this.#server = createServer((near) => {
      const far = connect({ host: '127.0.0.1', port });
      for (const socket of [near, far]) {
        this.#sockets.add(socket);
        socket.on('error', () => {});
        socket.on('close', () => {
          near.destroy();
          far.destroy();
          this.#sockets.delete(socket);
        });
      }
      near.pipe(far);
      void this.#carry(runtime, far, near, bytesPerMs).catch(() => near.destroy());
    });
  }

  /** Opens a tunnel to `port` of this machine. */
  static async open(
    runtime: Runtime,
    options: { port: number; bytesPerMs: number },
  ): Promise<SlowLink> {
    const link = new SlowLink(runtime, options);
    await new Promise<void>((resolve) => link.#server.listen(0, '127.0.0.1', resolve));
    return link;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #carry(runtime: Runtime, far: Socket, near: Socket, bytesPerMs: number): Promise<void> {
    for await (const chunk of far as AsyncIterable<Buffer>) {
      this.bytes += chunk.length;
      await sleep(runtime, chunk.length / bytesPerMs);
      near.write(chunk);
    }
  }
}
