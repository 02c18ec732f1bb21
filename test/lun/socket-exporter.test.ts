import { expect, test } from 'vitest';
import type { LogicalUnit } from '../../src/bridge/logical-unit.js';
import type { SessionResources } from '../../src/lun/runtime.js';
import { SocketExporter } from '../../src/lun/socket-exporter.js';

/** As much of a unit as a name needs. */
function unit(lun: number): LogicalUnit {
  const queue = { sizeBytes: 512, blockSizeBytes: 512, readOnly: false };
  const capabilities = { blockStatus: false, trim: false, writeZeroes: false, rotational: false };
  const facts = { vendor: 'V', product: 'P' };
  return { lun, queue, facts, capabilities } as unknown as LogicalUnit;
}

function newExporter(isSingle: boolean): SocketExporter {
  const resources = {} as SessionResources;
  return new SocketExporter({ path: '/nowhere/s', resources, isSingle, description: 'it' });
}

test('the only disk is the default export', async () => {
  const exporter = newExporter(true);
  await exporter.add(unit(3));
  expect(exporter.find('')?.device.sizeBytes).toBe(512);
});

test('a disk never gets the default name of a disk that was removed', async () => {
  const exporter = newExporter(false);
  const [first, second] = [unit(0), unit(1)];
  await exporter.add(first);
  await exporter.add(second);
  expect(exporter.find('')).toBeNull();
  await exporter.remove(first, 'gone');
  expect(exporter.find('')).toBeNull();
  expect(exporter.find('0')).toBeNull();
  expect(exporter.find('1')?.device).toBe(second.queue);
});
