// The viewer page: one card per guest, kept in step with what the server says, and one connection that
// pictures and input go over.

import type { Update } from '../src/outputs/browser/protocol.ts';
import type { ServedStatus } from '../src/server/served-status.ts';
import { arrange, create, setText } from './dom.ts';
import { GuestCard } from './guest-card.ts';
import { Link, type LinkState } from './link.ts';
import { takeToken } from './token.ts';

const cards = new Map<number, GuestCard>();
let status: ServedStatus | undefined;

/** The page's fixed elements, by the ids of index.html. */
function byId(id: string): HTMLElement {
  const element = document.getElementById(id);
  if (!element) throw new Error(`index.html has no #${id}`);
  return element;
}

const guestsElement = byId('guests');
const linkElement = byId('link');
const hostElement = byId('host');
const messageElement = byId('message');

const link = new Link(takeToken(), {
  onState: showLink,
  onStatus: showStatus,
  onUpdate: (update) => void draw(update),
});

document.addEventListener('visibilitychange', watchWhatIsSeen);

function showLink(state: LinkState): void {
  document.documentElement.dataset.link = state.kind;
  setText(linkElement, linkText(state));
  if (state.kind === 'refused') {
    setText(
      messageElement,
      `${state.reason}. Open the address that xen-zcopy printed when it started.`,
    );
  } else if (state.kind === 'connecting' && !status) {
    setText(messageElement, 'Connecting…');
  }
}

function linkText(state: LinkState): string {
  switch (state.kind) {
    case 'connecting':
      return 'connecting';
    case 'live':
      return 'live';
    case 'waiting':
      return `connection lost, trying again in ${(state.pauseMs / 1000).toFixed(1)} s`;
    case 'refused':
      return 'refused';
  }
}

function showStatus(next: ServedStatus): void {
  status = next;
  const domids = new Set(next.guests.map(({ domid }) => domid));
  for (const domid of cards.keys()) if (!domids.has(domid)) cards.delete(domid);
  // By name first, so that a guest that is started anew, under a new domid, keeps its place.
  const guests = [...next.guests].sort(
    (one, other) => one.name.localeCompare(other.name) || one.domid - other.domid,
  );
  const ordered = guests.map((guest) => {
    const card = cards.get(guest.domid) ?? new GuestCard(guest, { link, access: next.access });
    cards.set(guest.domid, card);
    card.setStatus(guest, next);
    return card.element;
  });
  arrange(guestsElement, ordered);
  setText(messageElement, guests.length > 0 ? '' : nobodyText(next));
  showHost(next.host);
  watchWhatIsSeen();
}

function nobodyText({ access }: ServedStatus): string {
  return access.limited
    ? 'None of the guests that you may see has a display yet.'
    : 'No guest has a display yet.';
}

function showHost({ provider, paths }: ServedStatus['host']): void {
  const chips = Object.entries(paths).map(([name, { available, reason }]) =>
    create('span', { class: available ? 'path' : 'path absent', text: name, title: reason }),
  );
  const shape = `${provider} ${chips.map((chip) => chip.outerHTML).join()}`;
  if (hostElement.dataset.shape === shape) return;
  hostElement.dataset.shape = shape;
  hostElement.replaceChildren(create('span', { text: provider }), ...chips);
}

/** Nothing is sent to a page that nobody sees. */
function watchWhatIsSeen(): void {
  if (!status) return;
  const screens = status.guests.flatMap(({ domid, displays }) =>
    displays.map(({ connector }) => ({ domid, connector })),
  );
  link.watch(document.hidden ? [] : screens);
}

async function draw(update: Update): Promise<void> {
  try {
    await cards.get(update.domid)?.panel(update)?.draw(update);
    link.drawn(update);
  } catch (error) {
    console.error(error);
    link.restart();
  }
}
