// `xen-zcopy share view`: pictures of another domain, live in the viewer page, until it is interrupted. When the
// share is over, the page says so, and the next one of the same name is shown.

import { SystemRandom } from '../../runtime/random.ts';
import { ViewerServer } from '../../server/server.ts';
import type { PictureContent } from '../../share/metadata.ts';
import type { OfferedShare } from '../../share/offered-share.ts';
import { ShareError } from '../../share/share-error.ts';
import { Ledger } from '../../zcopy/ledger.ts';
import { type ServiceOptions, serviceConfig } from '../config.ts';
import { Interrupted } from '../interrupted.ts';
import { announce } from '../service.ts';
import { parseId } from './arguments.ts';
import { isPicture } from './describe.ts';
import { awaitOffer, type FoundOffer, type OfferWish } from './offers.ts';
import { play } from './picture-player.ts';
import { type FromArguments, fromRules } from './policy-file.ts';
import { inDomain, type ShareContext } from './session.ts';
import { SharedView } from './shared-view.ts';

/** As typed. */
export type ViewArguments = FromArguments & ServiceOptions;

const ADVICE = 'Ctrl-C ends the viewing.';

/** @throws UsageError; SysError, ShareError in one line */
export async function viewShare(id: string | undefined, typed: ViewArguments): Promise<void> {
  const config = serviceConfig(typed, { random: new SystemRandom(), logLevel: 'error' });
  const wish = { id: parseId(id), rules: fromRules(typed) };
  const { logLevel, refreshHz, listen, token, allowedHosts } = config;
  try {
    await inDomain({ ...typed, logLevel }, async (context) => {
      const { runtime, scope, place } = context;
      const ledger = new Ledger();
      const { provider } = place.domain;
      const view = new SharedView({ runtime, ledger, provider, refreshHz });
      const server = await ViewerServer.start(runtime, { ...listen, view, token, allowedHosts });
      scope.own(server);
      announce(server, config, ADVICE);
      await viewAll(context, view, { ...wish, ledger });
    });
  } catch (error) {
    // There is no other end to it, unless one share was asked for.
    if (!(error instanceof Interrupted)) throw error;
  }
}

async function viewAll(context: ShareContext, view: SharedView, wish: OfferWish): Promise<void> {
  let name: string | undefined;
  const wanted = (share: OfferedShare) =>
    isPicture(share) && (name === undefined || share.metadata.name === name);
  for (;;) {
    const found = await awaitOffer(context, { ...wish, wanted });
    name = found.offered.metadata.name;
    const failure = await viewOne(context, view, found);
    if (wish.id === undefined) continue;
    if (failure !== undefined) throw failure;
    return;
  }
}

/** Shows one share until its end. @returns why it ended before the end of its stream */
async function viewOne(
  { signal }: ShareContext,
  view: SharedView,
  { importer, offered }: FoundOffer,
): Promise<ShareError | undefined> {
  const { content } = offered.metadata;
  try {
    if (!isPicture(offered)) {
      throw new ShareError(
        'malformed',
        `the share ${offered.id} is no picture that can be shown here`,
      );
    }
    await using share = await importer.open(offered.id);
    const { screen, meter } = view.begin(offered, content as PictureContent);
    await play({ offered, share, screen, meter, signal });
    await view.end('stopped');
    return undefined;
  } catch (error) {
    if (!(error instanceof ShareError) || !OVER.includes(error.reason)) throw error;
    await view.end(error.reason === 'exporter-gone' ? 'crashed' : 'stopped');
    return error;
  } finally {
    await importer.close();
  }
}

/** How a share ends, as against what cannot be shown at all. */
const OVER: readonly string[] = ['withdrawn', 'exporter-gone', 'unknown-id'];
