// What a guest without manners can be told to do to its PV display, over Linux's own devices: a frontend in user
// space, where no driver of the kernel has taken the device, which writes whatever it is told into its rings,
// directories and nodes. The scenarios that tell it are in lab/scenarios/pv-dom0/hostile.test.ts.
import { RawFrontend, type RawWorld } from '../../sim/guests/raw-frontend.ts';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import { type Runtime, until } from '../../src/runtime/runtime.ts';
import type { Domain, SharedPages } from '../../src/xen/domain.ts';
import { DOM0 } from '../../src/xen/ids.ts';
import { writePageDirectory } from '../../src/xen/page-directory.ts';

const PATIENCE_MS = 30_000;
const PAYLOAD_OFFSET = 8;

export interface RawRequest {
  readonly operation: number;
  /** The payload's 32-bit words, from byte 8 of the request on. */
  readonly words?: readonly number[];
}

/** The acts, by their names: each takes one object and answers with something that JSON can say. */
export class HostileActs {
  readonly #domain: Domain;
  readonly #frontend: RawFrontend<Domain>;
  readonly #runtime: Runtime;
  readonly #pages: SharedPages[] = [];

  constructor(runtime: Runtime, domain: Domain) {
    this.#runtime = runtime;
    this.#domain = domain;
    const world: RawWorld = {
      runtime,
      run: (promise) => promise,
      until: (condition, what) => until(runtime, condition, { what, timeoutMs: PATIENCE_MS }),
    };
    this.#frontend = new RawFrontend(world, domain, { connectors: 1 });
  }

  /** Shakes hands as every frontend does. */
  async connect(): Promise<void> {
    await this.#frontend.open();
  }

  /** Waits until the backend has connected so many times in all. */
  async connectedAgain({ times }: { times: number }): Promise<void> {
    await this.#frontend.connectedAgain(times);
  }

  /** Puts all of them into the ring at once. @returns the statuses that answer them, in order */
  async ask({ requests }: { requests: readonly RawRequest[] }): Promise<readonly number[]> {
    const { connector } = this;
    const ids = requests.map(({ operation, words = [] }) =>
      connector.put({ operation }, (bytes) => {
        const view = new DataView(bytes.buffer);
        words.forEach((word, index) => {
          view.setUint32(PAYLOAD_OFFSET + 4 * index, word, true);
        });
      }),
    );
    connector.push();
    const answers = () =>
      ids.flatMap((id) => connector.responses.find((response) => response.id === id) ?? []);
    const what = `answers to requests ${ids.join(', ')}`;
    await this.#until(() => answers().length === ids.length, what);
    return answers().map(({ status }) => status);
  }

  /** New pages full of `pixel`, and their directory. @returns the reference of its first page */
  async pages({ count, pixel }: { count: number; pixel: number }): Promise<number> {
    const { grants } = this.#domain;
    const pages = await grants.share({ domid: DOM0, pages: count, writable: false });
    this.#pages.push(pages);
    new Uint32Array(pages.bytes.buffer, pages.bytes.byteOffset, (count * PAGE_SIZE) / 4).fill(
      pixel,
    );
    const directory = await writePageDirectory(grants, { domid: DOM0, refs: pages.refs });
    this.#pages.push(directory);
    return directory.refs[0]!;
  }

  /** A directory page of these words; `self` stands for its own reference. */
  async directory({ words }: { words: readonly (number | 'self')[] }): Promise<number> {
    const page = await this.#domain.grants.share({ domid: DOM0, pages: 1, writable: false });
    this.#pages.push(page);
    const [own] = page.refs;
    new Uint32Array(page.bytes.buffer, page.bytes.byteOffset, words.length).set(
      words.map((word) => (word === 'self' ? own! : word)),
    );
    return own!;
  }

  /** Moves an index of the control ring (0: req_prod, 1: req_event, 2: rsp_prod, 3: rsp_event), and notifies. */
  async moveIndex({ word, by }: { word: number; by: number }): Promise<void> {
    const { connector } = this;
    connector.words[word] = connector.words[word]! + by;
    connector.notify();
  }

  async notify({ times }: { times: number }): Promise<void> {
    for (let time = 0; time < times; time++) this.connector.notify();
  }

  /** The ids of the flip events that have come. */
  async eventIds(): Promise<readonly number[]> {
    return this.connector.eventIds;
  }

  /** Writes a node of the display; null writes what an honest driver has published. */
  async node({ key, value }: { key: string; value: string | null }): Promise<void> {
    const published = this.#frontend.published[key];
    await this.#domain.store.write(this.#path(key), value ?? published ?? '');
  }

  /** What the backend says of its last failure. */
  async complaint(): Promise<string | null> {
    const path = `/local/domain/0/error/backend/vdispl/${this.#domain.domid}/0/error`;
    return (await this.#domain.store.read(path).catch(() => undefined)) ?? null;
  }

  /** Leaves as a driver does, and gives everything back. */
  async closeAll(): Promise<void> {
    await this.#frontend.close();
    for (const pages of this.#pages.splice(0)) await pages[Symbol.asyncDispose]();
  }

  get connector() {
    return this.#frontend.connectors[0]!;
  }

  #path(key: string): string {
    return `/local/domain/${this.#domain.domid}/device/vdispl/0/${key}`;
  }

  #until(condition: () => boolean, what: string): Promise<void> {
    return until(this.#runtime, condition, { what, timeoutMs: PATIENCE_MS });
  }
}
