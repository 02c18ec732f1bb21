import type { SendQueue } from '../base/send-queue.js';
import {
  NBD_BLOCK_DESCRIPTOR_BYTES,
  NBD_BLOCK_STATUS_BYTES,
  NBD_CHUNK_HEADER_BYTES,
  NBD_ERROR_CHUNK_BYTES,
  NBD_ERROR_MESSAGE_BYTES_MAX,
  NBD_OFFSET_DATA_BYTES,
  NBD_REPLY_FLAG,
  NBD_SIMPLE_REPLY_BYTES,
  NBD_STATE,
  nbdErrorNumber,
  writeBlockDescriptor,
  writeBlockStatusChunk,
  writeErrorChunk,
  writeNoneChunk,
  writeOffsetDataChunk,
  writeSimpleReply,
} from '../nbd/wire.js';
import type { BlockRequest } from './block-device.js';

/** Extents one block status reply carries at most; a client asks again for the rest. */
const EXTENTS_MAX = 1024;

/** Queues a simple reply ("Simple reply message"); the data of a read follows it by reference. */
export function sendSimpleReply(queue: SendQueue, request: BlockRequest): void {
  const errorNumber = request.errno === null ? 0 : nbdErrorNumber(request.errno);
  const at = queue.reserve(NBD_SIMPLE_REPLY_BYTES);
  writeSimpleReply(queue.headerView, at, errorNumber, request.cookieUpper, request.cookieLower);
  queue.commit(NBD_SIMPLE_REPLY_BYTES);
  if (request.operation === 'read' && request.errno === null) queue.pushFragments(request.data);
}

/** Queues a structured reply ("Structured reply chunk message") of one chunk. */
export function sendStructuredReply(
  queue: SendQueue,
  request: BlockRequest,
  contextId: number,
): void {
  const { cookieUpper, cookieLower } = request;
  const done = NBD_REPLY_FLAG.DONE;
  if (request.errno !== null) {
    const at = queue.reserve(NBD_ERROR_CHUNK_BYTES + NBD_ERROR_MESSAGE_BYTES_MAX);
    const number = nbdErrorNumber(request.errno);
    const out = queue.headerView;
    queue.commit(writeErrorChunk(out, at, done, cookieUpper, cookieLower, number, request.reason));
    return;
  }
  if (request.operation === 'blockStatus') {
    sendBlockStatus(queue, request, contextId);
    return;
  }
  if (request.operation !== 'read') {
    const at = queue.reserve(NBD_CHUNK_HEADER_BYTES);
    queue.commit(writeNoneChunk(queue.headerView, at, cookieUpper, cookieLower));
    return;
  }
  const at = queue.reserve(NBD_OFFSET_DATA_BYTES);
  const { offsetBytes, lengthBytes } = request;
  const out = queue.headerView;
  queue.commit(
    writeOffsetDataChunk(out, at, done, cookieUpper, cookieLower, offsetBytes, lengthBytes),
  );
  queue.pushFragments(request.data);
}

function sendBlockStatus(queue: SendQueue, request: BlockRequest, contextId: number): void {
  const extents = (request.extents ?? []).slice(0, request.oneExtent ? 1 : EXTENTS_MAX);
  const bytes = NBD_BLOCK_STATUS_BYTES + extents.length * NBD_BLOCK_DESCRIPTOR_BYTES;
  const start = queue.reserve(bytes);
  const out = queue.headerView;
  const { cookieUpper, cookieLower } = request;
  const done = NBD_REPLY_FLAG.DONE;
  let at = start;
  at += writeBlockStatusChunk(out, at, done, cookieUpper, cookieLower, contextId, extents.length);
  for (const extent of extents) {
    const flags = (extent.hole ? NBD_STATE.HOLE : 0) | (extent.zero ? NBD_STATE.ZERO : 0);
    // Extents lie inside the request, whose length has 32 bits.
    at += writeBlockDescriptor(out, at, extent.lengthBytes, flags);
  }
  queue.commit(bytes);
}
