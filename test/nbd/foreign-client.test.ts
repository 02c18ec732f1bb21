/**
 * Foreign clients (libnbd's tools, QEMU) judge the handshake, the framing and the replies: they
 * talk to a disk in memory that is served with nothing but `src/nbd`.
 */
import { execFile, execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { viewOf } from '../../src/base/view.js';
import { NbdHandshake, type NbdHandshakeResult } from '../../src/nbd/handshake.js';
import type { NbdExportInfo } from '../../src/nbd/option.js';
import { NBD_READ_STEP, NbdRequestReader } from '../../src/nbd/request-reader.js';
import {
  NBD_CMD,
  NBD_ERROR,
  NBD_FLAG,
  NBD_REPLY_FLAG,
  NBD_STATE,
  type NbdRequestHeader,
  writeBlockDescriptor,
  writeBlockStatusChunk,
  writeErrorChunk,
  writeNoneChunk,
  writeOffsetDataChunk,
  writeSimpleReply,
} from '../../src/nbd/wire.js';

const run = promisify(execFile);
const DISK_BYTES = 8 << 20;
/** Half of this piece is data and half is a hole. */
const PIECE_BYTES = 1 << 16;
/** Reads of this sector fail. */
const BAD_SECTOR_BYTES = 6 << 20;

function isInstalled(tool: string): boolean {
  try {
    execFileSync(tool, ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

class MemoryDisk {
  readonly memory = Buffer.alloc(DISK_BYTES);
  failing = false;

  isHole(start: number, end: number): boolean {
    return this.memory.subarray(start, end).every((byte) => byte === 0);
  }
}

/** The reply to one request, computed the plain way. */
function answer(
  disk: MemoryDisk,
  agreed: NbdHandshakeResult,
  header: NbdRequestHeader,
  data: Buffer,
): Buffer[] {
  const { cookieUpper, cookieLower, length, offsetBytes } = header;
  const cookie = [cookieUpper, cookieLower] as const;
  const end = offsetBytes + length;
  const make = (write: (view: DataView) => number) => {
    const buffer = Buffer.alloc(512);
    return buffer.subarray(0, write(viewOf(buffer)));
  };
  const done = () =>
    agreed.structuredReplies
      ? make((view) => writeNoneChunk(view, 0, ...cookie))
      : make((view) => writeSimpleReply(view, 0, NBD_ERROR.NONE, ...cookie));
  switch (header.type) {
    case NBD_CMD.WRITE:
      data.copy(disk.memory, offsetBytes);
      return [done()];
    case NBD_CMD.WRITE_ZEROES:
      disk.memory.fill(0, offsetBytes, end);
      return [done()];
    case NBD_CMD.FLUSH:
      return [done()];
    case NBD_CMD.BLOCK_STATUS: {
      const id = agreed.metaContexts[0]?.id ?? 0;
      const chunk = Buffer.alloc(64 + (length / 512) * 8);
      const middle = Math.min(Math.floor(offsetBytes / PIECE_BYTES + 1) * PIECE_BYTES, end);
      const status = disk.isHole(offsetBytes, middle) ? NBD_STATE.HOLE | NBD_STATE.ZERO : 0;
      let at = writeBlockStatusChunk(viewOf(chunk), 0, NBD_REPLY_FLAG.DONE, ...cookie, id, 1);
      at += writeBlockDescriptor(viewOf(chunk), at, middle - offsetBytes, status);
      return [chunk.subarray(0, at)];
    }
    case NBD_CMD.READ:
      break;
    default:
      return [make((view) => writeSimpleReply(view, 0, NBD_ERROR.EINVAL, ...cookie))];
  }
  const isBad = disk.failing && offsetBytes <= BAD_SECTOR_BYTES && BAD_SECTOR_BYTES < end;
  const content = disk.memory.subarray(offsetBytes, end);
  if (!agreed.structuredReplies) {
    const error = isBad ? NBD_ERROR.EIO : NBD_ERROR.NONE;
    const reply = make((view) => writeSimpleReply(view, 0, error, ...cookie));
    return isBad ? [reply] : [reply, content];
  }
  if (isBad) {
    const flags = NBD_REPLY_FLAG.DONE;
    const message = 'the medium is bad';
    return [make((view) => writeErrorChunk(view, 0, flags, ...cookie, NBD_ERROR.EIO, message))];
  }
  const half = Math.floor(length / 1024) * 512;
  const parts: Buffer[] = [];
  for (const [start, size] of [[0, half] as const, [half, length - half] as const]) {
    const at = offsetBytes + start;
    if (size === 0) continue;
    parts.push(make((view) => writeOffsetDataChunk(view, 0, 0, ...cookie, at, size)));
    parts.push(content.subarray(start, start + size));
  }
  return [...parts, done()];
}

function serve(socket: Socket, disk: MemoryDisk, info: NbdExportInfo): void {
  const find = (name: string) => (name === '' || name === info.name ? info : null);
  const handshake = new NbdHandshake({ list: () => [info], find });
  const reader = new NbdRequestReader();
  let payload: Buffer[] = [];
  socket.on('error', () => socket.destroy());
  socket.write(handshake.greeting());
  socket.on('data', (received) => {
    const used = handshake.bytesReceived(received);
    const output = handshake.takeOutput();
    if (output !== null) socket.write(output);
    if (handshake.state === 'closed') socket.end();
    const agreed = handshake.result;
    if (agreed === null) return;
    reader.feed(0, received, used, received.length);
    for (let step = reader.next(); step !== NBD_READ_STEP.NEED; step = reader.next()) {
      if (step === NBD_READ_STEP.PAYLOAD) {
        const at = reader.fragmentOffset;
        payload.push(received.subarray(at, at + reader.fragmentLength));
      }
      if (step !== NBD_READ_STEP.END) continue;
      if (reader.header.type === NBD_CMD.DISC) {
        socket.end();
        continue;
      }
      for (const part of answer(disk, agreed, reader.header, Buffer.concat(payload))) {
        socket.write(Buffer.from(part));
      }
      payload = [];
    }
  });
}

const INFO: NbdExportInfo = {
  name: 'lun 0',
  description: 'a disk in memory',
  sizeBytes: DISK_BYTES,
  transmissionFlags:
    NBD_FLAG.SEND_FLUSH | NBD_FLAG.SEND_FUA | NBD_FLAG.SEND_WRITE_ZEROES | NBD_FLAG.CAN_MULTI_CONN,
  minimumBlockBytes: 512,
  preferredBlockBytes: 4096,
  maximumBlockBytes: 1 << 25,
  blockStatus: true,
};

const hasLibnbd = isInstalled('nbdinfo') && isInstalled('nbdcopy');
const hasQemu = isInstalled('qemu-img') && isInstalled('qemu-io');

describe('foreign clients', () => {
  const folder = mkdtempSync(join(tmpdir(), 'nbd-foreign-'));
  const socketPath = join(folder, 'nbd.sock');
  const uri = `nbd+unix:///lun%200?socket=${socketPath}`;
  const disk = new MemoryDisk();
  let server: Server;

  beforeAll(async () => {
    server = createServer((socket) => serve(socket, disk, INFO));
    await new Promise<void>((resolve) => server.listen(socketPath, resolve));
  });

  afterAll(() => {
    server.close();
    rmSync(folder, { recursive: true });
  });

  /** A disk of pieces: every third is data, the rest are holes. */
  function pattern(): Buffer {
    const content = Buffer.alloc(DISK_BYTES);
    for (let at = 0; at < DISK_BYTES; at += 3 * PIECE_BYTES) {
      for (let byte = at; byte < at + PIECE_BYTES && byte < DISK_BYTES; byte += 1) {
        content[byte] = (byte * 31 + (byte >> 9)) % 255;
      }
    }
    return content;
  }

  test.skipIf(!hasLibnbd)('nbdinfo shows the export as it is described', async () => {
    for (const args of [[uri], ['--list', `nbd+unix:///?socket=${socketPath}`]]) {
      const { stdout } = await run('nbdinfo', ['--json', ...args]);
      const described = JSON.parse(stdout);
      expect(described).toMatchObject({ protocol: 'newstyle-fixed' });
      expect(described.exports[0]).toMatchObject({
        'export-name': 'lun 0',
        description: 'a disk in memory',
        'export-size': DISK_BYTES,
        contexts: ['base:allocation'],
        can_flush: true,
        can_fua: true,
        can_zero: true,
        can_trim: false,
        can_df: false,
        is_read_only: false,
        can_multi_conn: true,
        block_size_minimum: 512,
        block_size_preferred: 4096,
        block_size_maximum: 1 << 25,
      });
    }
  });

  test.skipIf(!hasLibnbd)('nbdinfo fails on an export that does not exist', async () => {
    const wrong = `nbd+unix:///nope?socket=${socketPath}`;
    await expect(run('nbdinfo', [wrong])).rejects.toThrow(/No such file|no export/i);
  });

  test.skipIf(!hasLibnbd)('nbdcopy writes a disk and reads the same bytes back', async () => {
    const [from, to] = [join(folder, 'from'), join(folder, 'to')];
    writeFileSync(from, pattern());
    await run('nbdcopy', [from, uri]);
    expect(disk.memory.equals(pattern())).toBe(true);
    await run('nbdcopy', [uri, to]);
    expect(readFileSync(to).equals(pattern())).toBe(true);
  });

  test.skipIf(!hasLibnbd)('nbdinfo --map shows data and holes at their places', async () => {
    disk.memory.set(pattern());
    const { stdout } = await run('nbdinfo', ['--map', '--json', uri]);
    const map: { offset: number; type: number }[] = JSON.parse(stdout);
    expect(map[0]).toMatchObject({ offset: 0, type: 0 });
    expect(map[1]).toMatchObject({ offset: PIECE_BYTES, type: 3 });
  });

  test.skipIf(!hasQemu)('qemu-img converts to the export, and finds it identical', async () => {
    const from = join(folder, 'qemu-from');
    writeFileSync(from, pattern());
    disk.memory.fill(0xff);
    const raw = ['-f', 'raw', '-O', 'raw'];
    await run('qemu-img', ['convert', '-n', ...raw, from, uri]);
    expect(disk.memory.equals(pattern())).toBe(true);
    const { stdout } = await run('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', from, uri]);
    expect(stdout).toMatch('identical');
  });

  test.skipIf(!hasQemu)('qemu-io gets a read error, and the connection survives', async () => {
    disk.memory.set(pattern());
    disk.failing = true;
    const reads = [`read ${BAD_SECTOR_BYTES} 512`, `read ${BAD_SECTOR_BYTES - 512} 4k`];
    const commands = [...reads, 'read 0 4k'].flatMap((command) => ['-c', command]);
    const result = await run('qemu-io', ['-f', 'raw', ...commands, uri]).catch((error) => error);
    disk.failing = false;
    expect(result.stdout.match(/Input\/output error/g)).toHaveLength(2);
    expect(result.stdout).toMatch('read 4096/4096 bytes at offset 0');
  });
});
