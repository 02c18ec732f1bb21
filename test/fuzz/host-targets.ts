/** Fuzz targets for input from this host: clients of the sockets, files, the kernel, firmware. */
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { crc32c } from '../../src/base/crc32c.js';
import { isForeignFault } from '../../src/base/errors.js';
import { LineSplitter } from '../../src/base/line-splitter.js';
import type { BootSource } from '../../src/boot/boot-source.js';
import { parseBootCommandLine } from '../../src/boot/boot-source-cmdline.js';
import { readIbft } from '../../src/boot/boot-source-ibft.js';
import {
  RETAINED_INDEX_BYTES,
  readRetainedIndex,
} from '../../src/bridge/retained/retained-index.js';
import { loadConfigWith } from '../../src/config/config.js';
import { parseConfigText } from '../../src/config/parse-config.js';
import { METHOD_PARAMS } from '../../src/control/control-methods.js';
import { faultText, parseRequest } from '../../src/control/control-protocol.js';
import { readSecrets, readVolumeContext } from '../../src/csi/csi-attributes.js';
import { readDockerOptions } from '../../src/docker-plugin/docker-options.js';
import { PREAMBLE_BYTES, readPreamble } from '../../src/lun/retained-files.js';
import { keyText, parseRecord } from '../../src/supervisor/session-record.js';

/** The result, or null for what is refused in words of ours. */
function refused<T>(action: () => T): T | null {
  try {
    return action();
  } catch (error) {
    if (error instanceof z.ZodError || isForeignFault(error)) return null;
    throw error;
  }
}

function jsonOf(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString('utf8'));
  } catch {
    return null;
  }
}

const LINE_BYTES_MAX = 200;

function linesOf(bytes: Buffer, pieceBytes: number): string[] {
  const splitter = new LineSplitter(LINE_BYTES_MAX);
  const lines: string[] = [];
  for (let at = 0; at < bytes.length; at += pieceBytes) {
    for (const line of splitter.push(bytes.subarray(at, at + pieceBytes))) {
      if (line === null) return [...lines, 'too long'];
      lines.push(line);
    }
  }
  return lines;
}

/** Lines of a client of the control socket: any cut gives the same, each is a request or a fault. */
export function control(data: Buffer): void {
  const lines = linesOf(data, Math.max(1, data.length));
  if (linesOf(data, 1).join('\n') !== lines.join('\n')) throw new Error('the cut changes lines');
  for (const line of data.toString('utf8').split('\n')) {
    const request = parseRequest(line);
    if ('fault' in request) {
      if (request.fault.message.length > 400) throw new Error('a long message');
      continue;
    }
    const schema = Object.hasOwn(METHOD_PARAMS, request.method)
      ? METHOD_PARAMS[request.method]
      : undefined;
    const parsed = schema?.safeParse(request.params);
    if (parsed?.success === false) faultText(parsed.error);
  }
}

const memory = Buffer.from(new ArrayBuffer(RETAINED_INDEX_BYTES));

/** A journal of retained writes: damaged memory is refused, or its entries make sense. */
export function journal(data: Buffer): void {
  const preamble = Buffer.alloc(PREAMBLE_BYTES);
  data.copy(preamble, 0, 0, Math.min(data.length, 1024));
  readPreamble(preamble);
  // The same with a right checksum, which no fuzzer finds.
  const length = Math.min(preamble.readUInt32LE(12), PREAMBLE_BYTES - 20);
  preamble.writeInt32LE(crc32c(preamble, 20, 20 + length, 0), 16);
  readPreamble(preamble);
  const bytes = data.subarray(0, 4096);
  bytes.copy(memory);
  const entries = readRetainedIndex(memory);
  memory.fill(0, 0, bytes.length);
  for (const { offsetBytes, lengthBytes, pieces } of entries ?? []) {
    if (!(lengthBytes > 0 && offsetBytes >= 0)) throw new Error('a range of nothing');
    if (pieces.length % 3 !== 0 || pieces.some((value) => value < 0)) throw new Error('a piece');
  }
}

const READING = { subject: null, bootId: 'a-boot' };

/** Records of sessions: what is taken can be written and is read as the same. */
export function records(data: Buffer): void {
  const record = refused(() => parseRecord(jsonOf(data), READING));
  if (record === null) return;
  const text = JSON.stringify(record);
  const again = parseRecord(JSON.parse(text), READING);
  if (JSON.stringify(again) !== text) throw new Error('it is read otherwise');
  keyText(record);
}

/** The configuration file, and environment of the same words. */
export function config(data: Buffer): void {
  const text = data.toString('utf8');
  const inputs = { flags: {}, environment: { ISCSI_NBD_PORTALS: text } };
  refused(() => parseConfigText({ path: 'config.yaml', text }));
  refused(() => loadConfigWith({ ...inputs, configPath: '/dev/null' }, parseConfigText));
}

function verifySource(source: BootSource): void {
  const { portal, targetName, lun, initiatorName = '' } = source;
  const isPlace = portal.host !== '' && portal.port > 0 && portal.port < 65_536;
  if (!isPlace || !Number.isInteger(lun) || lun < 0) throw new Error('the place makes no sense');
  if (/\p{Cc}/u.test(`${targetName}${initiatorName}${portal.host}`)) throw new Error('controls');
}

/** The kernel command line. */
export function cmdline(data: Buffer): void {
  const found = refused(() => parseBootCommandLine(data.toString('utf8')));
  if (found !== null && found !== 'firmware') verifySource(found);
}

const MEMORY = '/dev/shm';
let folder = '';

/** The firmware's table, as files; a line is `folder/file=value`. */
export function ibft(data: Buffer): void {
  if (folder === '') {
    folder = mkdtempSync(join(existsSync(MEMORY) ? MEMORY : tmpdir(), 'iscsi-nbd-ibft-'));
    process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
  }
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder);
  for (const line of data.toString('latin1').split('\n').slice(0, 24)) {
    const [, entry, attribute, value = ''] = /^([a-z]+\d{0,3})\/([a-z-]+)=(.*)$/s.exec(line) ?? [];
    if (entry === undefined || attribute === undefined || attribute.length > 200) continue;
    if (entry.length > 200) continue;
    mkdirSync(join(folder, entry), { recursive: true });
    writeFileSync(join(folder, entry, attribute), Buffer.from(`${value}\n`, 'latin1'));
  }
  const found = refused(() => readIbft(folder));
  if (found !== null) verifySource(found);
}

const texts = z.record(z.string(), z.string());

/** Attributes of volumes, as the containers' plugins get them. */
export function containers(data: Buffer): void {
  const given = texts.safeParse(jsonOf(data.subarray(1)));
  if (!given.success) return;
  const [isBlock, isReadOnly] = [((data[0] ?? 0) & 1) !== 0, ((data[0] ?? 0) & 2) !== 0];
  const capability = { isBlock, isReadOnly, fsType: '', mountFlags: [] };
  refused(() => readVolumeContext(given.data, capability));
  refused(() => readSecrets(given.data, given.data));
  refused(() => readDockerOptions(given.data));
}
