// What one domain may use of the store: xenstored's defaults (its options -E, -W, -t, -A, -S and -Q of Xen 4.17).
// The control domain is not bound by them.

export interface Quotas {
  /** Nodes that the domain owns. */
  readonly nodes: number;
  readonly watches: number;
  /** Open transactions. */
  readonly transactions: number;
  /** Nodes that one transaction may read or write. */
  readonly transactionNodes: number;
  /** Entries of one node's list of permissions. */
  readonly permissions: number;
  /** Bytes of one node: value, permissions and its children's names. */
  readonly nodeBytes: number;
  /** Requests whose replies were not taken yet; further ones wait. */
  readonly outstanding: number;
}

export const DEFAULT_QUOTAS: Quotas = {
  nodes: 1000,
  watches: 128,
  transactions: 10,
  transactionNodes: 1024,
  permissions: 5,
  nodeBytes: 2048,
  outstanding: 20,
};
