// The page as it is served: everything that runs or styles it comes from files of ours, so that the content
// security policy needs no exception.

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { systemRuntime } from '../../src/runtime/runtime.ts';
import { ViewerServer } from '../../src/server/server.ts';
import { http } from './http-client.ts';
import { ScriptedView } from './scripted-view.ts';

const runtime = systemRuntime();

interface Tag {
  readonly name: string;
  readonly attributes: ReadonlyMap<string, string>;
  /** What follows up to the next tag. */
  readonly text: string;
}

/** The opening tags of a page. */
function tagsOf(html: string): Tag[] {
  return [
    ...html.matchAll(/<([a-z][a-z0-9]*)((?:\s+[^\s=>/]+(?:="[^"]*")?)*)\s*\/?>([^<]*)/gi),
  ].map(([, name, attributes, text]) => ({
    name: name!.toLowerCase(),
    attributes: new Map(
      [...attributes!.matchAll(/([^\s=>/]+)(?:="([^"]*)")?/g)].map(([, key, value]) => [
        key!.toLowerCase(),
        value ?? '',
      ]),
    ),
    text: text!,
  }));
}

/** What a page has that would need an exception in its policy. */
function inlined(html: string): string[] {
  return tagsOf(html).flatMap(({ name, attributes, text }) => {
    const complaints: string[] = [];
    if (name === 'style') complaints.push('a style element');
    if (name === 'script' && (!attributes.has('src') || text.trim() !== '')) {
      complaints.push('a script in the page');
    }
    for (const [key, value] of attributes) {
      if (key === 'style' || key.startsWith('on')) complaints.push(`${name} ${key}`);
      if (/^\s*(javascript|data|https?):|^\/\//i.test(value))
        complaints.push(`${name} ${key}=${value}`);
    }
    return complaints;
  });
}

async function get(context: TestContext, path: string): Promise<string> {
  const view = new ScriptedView(runtime);
  const token = 'a-token-of-the-page-test';
  const server = await ViewerServer.start(runtime, { view, host: '127.0.0.1', port: 0, token });
  context.after(() => server[Symbol.asyncDispose]());
  const { status, body } = await http({ port: server.port, path });
  assert.equal(status, 200);
  return body.toString();
}

test('the page has no script, style or handler in itself, and asks for nothing from elsewhere', async (context) => {
  const html = await get(context, '/');
  const names = tagsOf(html).map(({ name }) => name);
  for (const name of ['html', 'head', 'script', 'link', 'body', 'main']) {
    assert(names.includes(name), `the test has not seen <${name}>`);
  }
  assert.deepEqual(inlined(html), []);
});

test('the look into the page notices what must not be there', () => {
  const found = (html: string) => inlined(html).length;
  assert.equal(found('<script src="main.js"></script><p class="a">text</p>'), 0);
  for (const html of [
    '<script>alert(1)</script>',
    '<script src="a.js">alert(1)</script>',
    '<style>p { color: red }</style>',
    '<p style="color: red">',
    '<img src="a.png" onerror="alert(1)" />',
    '<a href="javascript:alert(1)">',
    '<script src="https://cdn.example/a.js"></script>',
    '<img src="//cdn.example/a.png" />',
  ]) {
    assert.equal(found(html), 1, html);
  }
});

test('the page’s script makes nothing out of text: no eval, no markup from strings', async (context) => {
  const script = await get(context, '/main.js');
  assert(script.length > 1000);
  for (const sink of [
    /\beval\s*\(/,
    /\bnew Function\b/,
    /\.innerHTML\s*=/,
    /\.outerHTML\s*=/,
    /insertAdjacentHTML/,
    /document\.write/,
    /setTimeout\(\s*["'`]/,
    /\.srcdoc\b/,
  ]) {
    assert.doesNotMatch(script, sink);
  }
});
