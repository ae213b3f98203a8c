// One function for each request of the protocol (docs/misc/xenstore.txt of the Xen tree): checks the payload's form,
// does it, and makes the answer's payload. Refusals are StoreErrors.

import { DOMID_FIRST_RESERVED } from '../../abi/xen.ts';
import {
  XENSTORE_PAYLOAD_MAX,
  XS_CONTROL,
  XS_DIRECTORY,
  XS_DIRECTORY_PART,
  XS_GET_DOMAIN_PATH,
  XS_GET_PERMS,
  XS_INTRODUCE,
  XS_IS_DOMAIN_INTRODUCED,
  XS_MKDIR,
  XS_READ,
  XS_RELEASE,
  XS_RESET_WATCHES,
  XS_RESUME,
  XS_RM,
  XS_SET_PERMS,
  XS_SET_TARGET,
  XS_TRANSACTION_END,
  XS_TRANSACTION_START,
  XS_UNWATCH,
  XS_WATCH,
  XS_WRITE,
} from '../../abi/xs-wire.ts';
import { type DomId, domId } from '../../xen/ids.ts';
import { formatPermission, parsePermission } from '../../xen/xenstore-permission.ts';
import { decodeString, type XenstoreMessage } from '../../xen/xenstore-wire.ts';
import type { Connection, Reply } from './connection.ts';
import { control } from './control.ts';
import {
  access,
  type Context,
  makeDirectory,
  remove,
  setPermissions,
  write,
} from './operations.ts';
import { absoluteName, canonicalPath, checkSpecial, domainPath, isSpecial } from './path.ts';
import type { Permissions } from './permissions.ts';
import type { Xenstored } from './server.ts';
import { StoreError } from './store-error.ts';

interface Request {
  readonly server: Xenstored;
  readonly connection: Connection;
  readonly message: XenstoreMessage;
}

type Handler = (request: Request) => Reply;

const OK: Reply = { parts: ['OK\0'] };

/** Answers one request. @throws StoreError for what goes back as XS_ERROR */
export function handleRequest(request: Request): Reply {
  const { connection, message } = request;
  const { transactionId } = message;
  if (transactionId !== 0 && !connection.transactions.has(transactionId)) {
    throw StoreError.of('ENOENT');
  }
  const handler = HANDLERS.get(message.type);
  if (!handler) throw StoreError.of('ENOSYS');
  return handler(request);
}

const HANDLERS: ReadonlyMap<number, Handler> = new Map([
  [XS_READ, readValue],
  [XS_WRITE, writeValue],
  [XS_MKDIR, (request) => change(request, makeDirectory)],
  [XS_RM, (request) => change(request, remove)],
  [XS_DIRECTORY, listDirectory],
  [XS_DIRECTORY_PART, listDirectoryPart],
  [XS_GET_PERMS, getPermissions],
  [XS_SET_PERMS, changePermissions],
  [XS_WATCH, watch],
  [XS_UNWATCH, unwatch],
  [XS_RESET_WATCHES, resetWatches],
  [XS_TRANSACTION_START, startTransaction],
  [XS_TRANSACTION_END, endTransaction],
  [XS_INTRODUCE, introduce],
  [XS_RELEASE, (request) => domainCommand(request, (server, domid) => server.releaseDomain(domid))],
  [XS_RESUME, (request) => domainCommand(request, (server, domid) => server.resumeDomain(domid))],
  [XS_SET_TARGET, setTarget],
  [XS_GET_DOMAIN_PATH, getDomainPath],
  [XS_IS_DOMAIN_INTRODUCED, isDomainIntroduced],
  [XS_CONTROL, runControl],
]);

function readValue(request: Request): Reply {
  return { parts: [access(contextOf(request), onePath(request), 'read').value] };
}

function writeValue(request: Request): Reply {
  const { payload } = request.message;
  const end = payload.indexOf(0);
  if (end < 0) throw StoreError.of('EINVAL');
  const path = pathOf(request, payload.toString('latin1', 0, end));
  write(contextOf(request), path, payload.slice(end + 1));
  return OK;
}

function change(request: Request, operation: (context: Context, path: string) => void): Reply {
  operation(contextOf(request), onePath(request));
  return OK;
}

function listDirectory(request: Request): Reply {
  const { children, childNameBytes } = access(contextOf(request), onePath(request), 'read');
  if (childNameBytes > XENSTORE_PAYLOAD_MAX) throw StoreError.of('E2BIG');
  return { parts: [[...children.keys()].map((name) => `${name}\0`).join('')] };
}

/** As many whole names as fit from `offset` on, after the generation; an empty name ends the list. */
function listDirectoryPart(request: Request): Reply {
  const [name, offsetText] = stringsOf(request.message, 2);
  const node = access(contextOf(request), pathOf(request, name!), 'read');
  const offset = decimal(offsetText!);
  const head = `${node.generation}\0`;
  let room = XENSTORE_PAYLOAD_MAX - head.length;
  const names: string[] = [];
  let at = 0;
  for (const child of node.children.keys()) {
    const entry = `${child}\0`;
    at += entry.length;
    if (at <= offset) continue;
    if (entry.length > room) return { parts: [head, names.join('')] };
    names.push(entry.slice(Math.max(0, offset - (at - entry.length))));
    room -= entry.length;
  }
  return { parts: [head, names.join(''), room > 0 ? '\0' : ''] };
}

function getPermissions(request: Request): Reply {
  const [name] = stringsOf(request.message, 1);
  const permissions = isSpecial(name!)
    ? request.server.specialPermissions(name!)
    : access(contextOf(request), pathOf(request, name!), 'read').permissions;
  return { parts: permissions.map((permission) => `${formatPermission(permission)}\0`) };
}

function changePermissions(request: Request): Reply {
  const [name, ...texts] = stringsOf(request.message, 2);
  const permissions = parsePermissions(texts);
  const context = contextOf(request);
  if (!isSpecial(name!)) {
    setPermissions(context, pathOf(request, name!), permissions);
    return OK;
  }
  // At once, also inside a transaction: xenstore-chmod always opens one.
  checkPrivileged(request);
  request.server.setSpecialPermissions(name!, permissions);
  return OK;
}

function parsePermissions(texts: readonly string[]): Permissions {
  const [owner, ...others] = texts.map((text) => {
    const permission = parsePermission(text);
    if (!permission) throw StoreError.of('EINVAL');
    return permission;
  });
  if (!owner) throw StoreError.of('EINVAL');
  return [owner, ...others];
}

function watch(request: Request): Reply {
  const { server, connection } = request;
  const [name, token] = stringsOf(request.message, 2);
  const path = isSpecial(name!) ? checkSpecial(name!) : pathOf(request, name!);
  const relative = path !== name;
  const base = relative ? domainPath(connection.caller.domid) : undefined;
  const maxWatches = server.quotasOf(connection.caller)?.watches ?? Number.POSITIVE_INFINITY;
  server.watches.add({ watcher: connection, path, token: token!, base }, maxWatches);
  return { ...OK, after: () => connection.watchEvent(name!, token!) };
}

function unwatch({ server, connection, message }: Request): Reply {
  const [name, token] = stringsOf(message, 2);
  const path = absoluteName(name!, domainPath(connection.caller.domid));
  server.watches.remove(connection, path, token!);
  return OK;
}

function resetWatches({ server, connection }: Request): Reply {
  server.watches.removeAll(connection);
  connection.transactions.clear();
  return OK;
}

function startTransaction({ server, connection, message }: Request): Reply {
  if (message.transactionId !== 0) throw StoreError.of('EBUSY');
  const quotas = server.quotasOf(connection.caller);
  if (quotas && connection.transactions.size >= quotas.transactions) {
    throw StoreError.of('ENOSPC');
  }
  const maxNodes = quotas ? quotas.transactionNodes : Number.POSITIVE_INFINITY;
  const id = connection.addTransaction(server.store.begin(maxNodes));
  return { parts: [`${id}\0`] };
}

function endTransaction({ server, connection, message }: Request): Reply {
  const [verdict] = stringsOf(message, 1);
  if (verdict !== 'T' && verdict !== 'F') throw StoreError.of('EINVAL');
  const transaction = connection.transactions.get(message.transactionId);
  if (!transaction) throw StoreError.of('ENOENT');
  connection.transactions.delete(message.transactionId);
  if (verdict === 'T') server.store.commit(transaction, server.quotasOf(connection.caller));
  return OK;
}

function introduce(request: Request): Reply {
  checkPrivileged(request);
  const [domidText, frameText, portText] = stringsOf(request.message, 3);
  const domid = ordinaryDomain(domidText!);
  request.server.introduceByFrame({ domid, frame: frameText!, port: decimal(portText!) });
  return OK;
}

function domainCommand(
  request: Request,
  command: (server: Xenstored, domid: DomId) => void,
): Reply {
  checkPrivileged(request);
  const domid = introducedDomain(request, stringsOf(request.message, 1)[0]!);
  command(request.server, domid);
  return OK;
}

function setTarget(request: Request): Reply {
  checkPrivileged(request);
  const [domid, target] = stringsOf(request.message, 2).map((text) =>
    introducedDomain(request, text),
  );
  request.server.setTarget({ domid: domid!, target: target! });
  return OK;
}

function getDomainPath(request: Request): Reply {
  return { parts: [`${domainPath(decimal(stringsOf(request.message, 1)[0]!))}\0`] };
}

function isDomainIntroduced(request: Request): Reply {
  checkPrivileged(request);
  const introduced = request.server.isIntroduced(decimal(stringsOf(request.message, 1)[0]!));
  return { parts: [introduced ? 'T\0' : 'F\0'] };
}

function runControl(request: Request): Reply {
  checkPrivileged(request);
  return { parts: [control(request.server, stringsOf(request.message, 1))] };
}

function contextOf({ server, connection, message }: Request): Context {
  const { caller } = connection;
  const view = connection.transactions.get(message.transactionId) ?? server.store;
  return { view, caller, quotas: server.quotasOf(caller) };
}

/** The payload's strings, each ended by a NUL, at least that many. @throws StoreError EINVAL */
function stringsOf({ payload }: XenstoreMessage, atLeast: number): string[] {
  const strings = decodeString(payload).split('\0');
  const unfinished = strings.pop();
  if (unfinished !== '' || strings.length < atLeast) throw StoreError.of('EINVAL');
  return strings;
}

/** The payload's only string. @throws StoreError EINVAL */
function onePath(request: Request): string {
  const { payload } = request.message;
  const end = payload.indexOf(0);
  if (end < 0 || end < payload.length - 1) throw StoreError.of('EINVAL');
  return pathOf(request, payload.toString('latin1', 0, end));
}

function pathOf({ connection }: Request, name: string): string {
  return canonicalPath(name, domainPath(connection.caller.domid));
}

function checkPrivileged({ connection }: Request): void {
  if (!connection.caller.privileged) throw StoreError.of('EACCES');
}

function decimal(text: string): number {
  if (!/^\d{1,10}$/.test(text)) throw StoreError.of('EINVAL');
  return Number(text);
}

/** A domain other than the control domain. */
function ordinaryDomain(text: string): DomId {
  const number = decimal(text);
  if (number === 0 || number >= DOMID_FIRST_RESERVED) throw StoreError.of('EINVAL');
  return domId(number);
}

function introducedDomain({ server }: Request, text: string): DomId {
  const domid = ordinaryDomain(text);
  if (!server.isIntroduced(domid)) throw StoreError.of('ENOENT');
  return domid;
}
