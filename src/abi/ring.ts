// xen/io/ring.h: the memory of a shared ring of requests and responses: a 64-byte head and slots
// that serve both ways. Layout only; the index arithmetic and its barriers are not here.
import { ANONYMOUS, type AnyType, reserved, struct, tail, u8, u32, union } from './layout.ts';

/** `union TAG_sring_entry`: one slot of the ring that ring.h's macro names with `tag`. */
export function sringEntry<Q extends AnyType, S extends AnyType>(tag: string, req: Q, rsp: S) {
  return union(`${tag}_sring_entry`, 'One slot of a shared ring.', {
    req: [0, req, 'a request, until the backend answers it'],
    rsp: [0, rsp, 'a response'],
  });
}

/** `struct TAG_sring`: the shared page of a ring whose slots are `entry`. */
export function sring<E extends AnyType>(tag: string, entry: E) {
  return struct(`${tag}_sring`, 'The shared page of a ring.', {
    req_prod: [0, u32, 'requests published by the frontend'],
    req_event: [4, u32, 'the backend wants an event when req_prod passes this'],
    rsp_prod: [8, u32, 'responses published by the backend'],
    rsp_event: [12, u32, 'the frontend wants an event when rsp_prod passes this'],
    pvt: [
      16,
      union(ANONYMOUS, 'Private to single protocols; zero here.', {
        netif: [
          0,
          struct(ANONYMOUS, 'netif.h', { smartpoll_active: [0, u8, 'unused here'] }),
          'netif.h',
        ],
        tapif_user: [0, struct(ANONYMOUS, 'tapif.h', { msg: [0, u8, 'unused here'] }), 'tapif.h'],
        pvt_pad: [0, reserved(u8, 4), 'zero'],
      }),
      'zero',
    ],
    __pad: [20, reserved(u8, 44), 'zero'],
    ring: [64, tail(entry, 1), 'the slots'],
  });
}

/** Slots in a ring of `pageBytes`: the largest power of two that fits (ring.h's RING_SIZE). */
export function ringSlots(ring: ReturnType<typeof sring>, pageBytes: number): number {
  const fitting = Math.floor((pageBytes - ring.fields.ring.offset) / ring.fields.ring.size);
  return 2 ** Math.floor(Math.log2(fitting));
}
