// What a frontend may write into xenstore, right and wrong (X1, P1).

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RawFrontend } from '../../sim/guests/raw-frontend.ts';
import { DisplayHost } from './host.ts';

type Spoil = RawFrontend['spoil'];

/** Connects a frontend that publishes `spoil` instead of what is right; returns what the error node says. */
async function refusal(spoil: Spoil): Promise<string> {
  const host = await DisplayHost.open();
  const { domain } = await host.guest('64x48', '64x48');
  const raw = new RawFrontend(host, domain, { connectors: 2 });
  raw.spoil = spoil;
  await raw.start();
  const { store } = host.host.dom0;
  const path = `/local/domain/0/error/backend/vdispl/${domain.domid}/0/error`;
  let error: string | undefined;
  for (let tries = 0; error === undefined && tries < 100; tries++) {
    await host.pause(50);
    error = await host.run(store.read(path));
  }
  assert(error, 'the backend says what is wrong');
  assert.equal(raw.connections, 0);
  const { watches: _, ...held } = host.account(domain.domid).held;
  assert(
    Object.values(held).every((count) => count === 0),
    'a connection that failed holds nothing',
  );

  await raw.close();
  raw.spoil = {};
  for (const key of Object.keys(spoil)) {
    await host.run(domain.store.remove(`/local/domain/${domain.domid}/device/vdispl/0/${key}`));
  }
  await raw.open();
  await raw.close();
  await host.close();
  return error;
}

/** How many connectors the backend serves of a frontend that publishes `spoil`. */
async function served(spoil: Spoil): Promise<number> {
  const host = await DisplayHost.open();
  const { domain } = await host.guest('64x48', '64x48');
  const raw = new RawFrontend(host, domain, { connectors: 2 });
  raw.spoil = spoil;
  await raw.open();
  const { length } = host.backend.connectorsOf(domain.domid);
  await raw.close();
  await host.close();
  return length;
}

const withoutConnector = (index: number): Spoil => ({
  [`${index}/req-ring-ref`]: null,
  [`${index}/req-event-channel`]: null,
  [`${index}/evt-ring-ref`]: null,
  [`${index}/evt-event-channel`]: null,
});

test('numbers that are none are refused, by the name of their node', async () => {
  for (const value of ['', '-1', '0', '1e3', '0x10', ' 8', '8 ', '08', '4294967296', 'NaN']) {
    assert.match(await refusal({ '0/req-ring-ref': value }), /0\/req-ring-ref/, value);
  }
  for (const node of ['0/req-event-channel', '1/evt-ring-ref', '1/evt-event-channel']) {
    assert.match(await refusal({ [node]: 'x'.repeat(300) }), /oversized-node|malformed-node/);
    assert.match(await refusal({ [node]: null }), /missing-node/, 'half a connector');
  }
});

test('references and ports that were never given are refused', async () => {
  assert.match(await refusal({ '0/req-ring-ref': '500' }), /bad-grant/);
  assert.match(await refusal({ '1/evt-ring-ref': '4294967295' }), /bad-grant/);
  assert.match(await refusal({ '1/req-event-channel': '1000' }), /EINVAL/);
});

test('a version that is not offered is refused; none, and "1", mean 1 (P1, trap 12)', async () => {
  for (const version of ['2', '01', '1,2', '', 'one']) {
    assert.match(await refusal({ version }), /unsupported-version|malformed-node/, version);
  }
  assert.equal(await served({}), 2);
  assert.equal(await served({ version: '1' }), 2);
});

test('connectors that the guest does not use are not served; a gap ends the list', async () => {
  assert.equal(await served(withoutConnector(1)), 1);
  assert.match(await refusal(withoutConnector(0)), /missing-node/);
  assert.match(await refusal({ '2/req-ring-ref': '8' }), /missing-node/, 'without a size');
});
