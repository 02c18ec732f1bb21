import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { CsiController } from '../../src/csi/csi-controller.js';
import { CsiNode } from '../../src/csi/csi-node.js';
import { type Serving, serveCsi } from '../../src/csi/csi-server.js';
import { TARGET, VolumeWorld } from '../volume/volume-world.js';
import { type Answer, CsiClient, mountOf } from './csi-client.js';

const GIB = 2 ** 30;

let world: VolumeWorld;
let folder: string;
let server: Serving;
let client: CsiClient;

beforeEach(async () => {
  world = new VolumeWorld();
  folder = mkdtempSync(join(tmpdir(), 'iscsi-nbd-csi-'));
  const volumes = ['small', 'large'].map((id, index) => {
    const attributes = { targetPortal: '192.0.2.1', iqn: TARGET, lun: String(index) };
    return { id, capacityBytes: (index + 1) * GIB, attributes };
  });
  writeFileSync(join(folder, 'list.yaml'), JSON.stringify(volumes));
  const node = new CsiNode(await world.start(), { nodeId: 'n', volumesMax: 0, topology: {} });
  const controller = await CsiController.open(join(folder, 'list.yaml'), join(folder, 'bindings'));
  const onFailure = (error: unknown) => {
    throw error;
  };
  const socketPath = join(folder, 'csi.sock');
  server = await serveCsi(socketPath, { node, controller, version: '1', onFailure });
  client = new CsiClient(socketPath);
});
afterEach(async () => {
  client.close();
  await server.close();
  world.dispose();
  rmSync(folder, { recursive: true, force: true });
});

function createOf(name: string, required: number, more: Answer = {}): Answer {
  const capacity_range = { required_bytes: required };
  return { name, volume_capabilities: [mountOf()], capacity_range, ...more };
}

const create = (...args: Parameters<typeof createOf>) =>
  client.call('Controller.CreateVolume', createOf(...args));
const codeOf = (method: string, request: Answer) => client.codeOf(`Controller.${method}`, request);

describe('the controller with a list of volumes', () => {
  it('the plugin says that it has a controller', async () => {
    const { capabilities } = await client.call('Identity.GetPluginCapabilities');
    expect(capabilities).toContainEqual({ service: { type: 1 }, volume_expansion: null });
    const own = await client.call('Controller.ControllerGetCapabilities');
    expect(own).toEqual({ capabilities: [{ rpc: { type: 1 } }, { rpc: { type: 13 } }] });
  });

  it('a name gets the smallest free volume that is large enough, and the same one again', async () => {
    const small = await create('a', 1);
    expect(small).toMatchObject({ volume: { volume_id: 'small', capacity_bytes: String(GIB) } });
    expect(await create('a', 1)).toEqual(small);
    expect(await codeOf('CreateVolume', createOf('a', 2 * GIB))).toBe('ALREADY_EXISTS');
    expect(await create('b', 1)).toMatchObject({ volume: { volume_id: 'large' } });
    expect(await codeOf('CreateVolume', createOf('c', 1))).toBe('OUT_OF_RANGE');
  });

  it('two names that ask at once do not get one volume', async () => {
    const both = await Promise.all([create('a', 1), create('b', 1)]);
    const ids = both.map(({ volume }) => (volume as { volume_id: string }).volume_id);
    expect(ids.sort()).toEqual(['large', 'small']);
  });

  it('a deleted volume is not given out again, as its data still exist', async () => {
    await create('a', 2 * GIB);
    expect(await codeOf('DeleteVolume', { volume_id: 'large' })).toBe('OK');
    expect(await codeOf('DeleteVolume', { volume_id: 'large' })).toBe('OK');
    expect(await codeOf('DeleteVolume', { volume_id: 'none' })).toBe('OK');
    expect(await codeOf('CreateVolume', createOf('b', 2 * GIB))).toBe('OUT_OF_RANGE');
    const question = { volume_id: 'large', volume_capabilities: [mountOf()] };
    expect(await codeOf('ValidateVolumeCapabilities', question)).toBe('NOT_FOUND');
  });

  it('capabilities are confirmed, or refused with the reason', async () => {
    await create('a', 1);
    const ask = (capability: Answer) =>
      client.call('Controller.ValidateVolumeCapabilities', {
        ...{ volume_id: 'small', volume_capabilities: [capability] },
      });
    expect(await ask(mountOf(1))).toMatchObject({ confirmed: { volume_capabilities: [{}] } });
    const refused = await ask(mountOf(5));
    expect(refused).toMatchObject({ confirmed: null, message: /several nodes/ });
  });

  it.each([
    ['CreateVolume', createOf('', 1)],
    ['CreateVolume', createOf('a', 1, { volume_capabilities: [] })],
    ['CreateVolume', createOf('a', 1, { volume_capabilities: [mountOf(5)] })],
    ['CreateVolume', createOf('a', -1)],
    ['CreateVolume', createOf('a', 2, { capacity_range: { required_bytes: 2, limit_bytes: 1 } })],
    ['DeleteVolume', { volume_id: '' }],
    ['ValidateVolumeCapabilities', { volume_capabilities: [mountOf()] }],
    ['ValidateVolumeCapabilities', { volume_id: 'small' }],
  ])('%s with a bad field (%#) is INVALID_ARGUMENT', async (method, request) => {
    expect(await codeOf(method, request)).toBe('INVALID_ARGUMENT');
  });

  it.each([
    ['no YAML', '{'],
    ['an id twice', '[{id: a, capacityBytes: 1, attributes: {}}, {id: a}]'],
    ['attributes that name no disk', '[{id: a, capacityBytes: 1, attributes: {lun: "1"}}]'],
  ])('a list with %s is refused at the start', async (_what, text) => {
    const path = join(folder, 'bad.yaml');
    writeFileSync(path, text);
    await expect(CsiController.open(path, folder)).rejects.toThrow(/--controller-volumes/);
  });
});
