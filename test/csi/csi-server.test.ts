import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { CsiNode } from '../../src/csi/csi-node.js';
import { type Serving, serveCsi, serveRegistration } from '../../src/csi/csi-server.js';
import { TARGET, VolumeWorld } from '../volume/volume-world.js';
import {
  type Answer,
  BAD_FIELDS,
  blockOf,
  CsiClient,
  mountOf,
  publishOf,
  stageOf,
} from './csi-client.js';

let world: VolumeWorld;
let folder: string;
let socketPath: string;
let server: Serving;
let client: CsiClient;
const failures: unknown[] = [];

beforeEach(async () => {
  world = new VolumeWorld();
  world.addDisk(1);
  folder = mkdtempSync(join(tmpdir(), 'iscsi-nbd-csi-'));
  socketPath = join(folder, 'csi.sock');
  failures.length = 0;
  await startPlugin();
});
afterEach(async () => {
  client.close();
  await server.close();
  world.dispose();
  rmSync(folder, { recursive: true, force: true });
});

async function startPlugin(topology: Record<string, string> = {}): Promise<void> {
  const node = new CsiNode(await world.start(), { nodeId: 'node1', volumesMax: 16, topology });
  const onFailure = (error: unknown) => failures.push(error);
  const served = { node, controller: null, version: '1.2.3', onFailure };
  server = await serveCsi(`unix://${socketPath}`, served);
  client = new CsiClient(socketPath);
}

const UNSTAGE = { volume_id: 'v', staging_target_path: '/staging/v' };
const UNPUBLISH = { volume_id: 'v', target_path: '/pods/1/volume' };
const STATS = { volume_id: 'v', volume_path: '/pods/1/volume' };
const NOTHING = { mounts: [], sessions: [], secrets: [], targets: [], staged: [] };

/** The life of a volume, in order, by method. */
function life(capability: Answer): readonly (readonly [string, Answer])[] {
  return [
    ['Node.NodeStageVolume', stageOf({ volume_capability: capability })],
    ['Node.NodePublishVolume', publishOf({ volume_capability: capability })],
    ['Node.NodeGetVolumeStats', STATS],
    ['Node.NodeExpandVolume', STATS],
    ['Node.NodeUnpublishVolume', UNPUBLISH],
    ['Node.NodeUnstageVolume', UNSTAGE],
  ];
}

describe('the identity service', () => {
  it('the plugin says what it is and that it is ready', async () => {
    expect(await client.call('Identity.GetPluginInfo')).toMatchObject({
      name: expect.stringMatching(/^[a-z0-9]+([-.][a-z0-9]+)*$/),
      vendor_version: '1.2.3',
    });
    expect(await client.call('Identity.Probe')).toEqual({ ready: { value: true } });
    const { capabilities } = await client.call('Identity.GetPluginCapabilities');
    expect(capabilities).toEqual([{ service: null, volume_expansion: { type: 1 } }]);
    expect(statSync(socketPath).mode & 0o777).toBe(0o600);
  });

  it('the node says who it is, what it can and where it is', async () => {
    const { capabilities } = await client.call('Node.NodeGetCapabilities');
    const types = (capabilities as { rpc: { type: number } }[]).map(({ rpc }) => rpc.type);
    expect(types).toEqual([1, 2, 3, 4, 5]);
    expect(await client.call('Node.NodeGetInfo')).toEqual({
      ...{ node_id: 'node1', max_volumes_per_node: '16', accessible_topology: null },
    });
    client.close();
    await server.close();
    await startPlugin({ 'example.com/rack': 'r1' });
    expect(await client.call('Node.NodeGetInfo')).toMatchObject({
      accessible_topology: { segments: { 'example.com/rack': 'r1' } },
    });
    const identity = await client.call('Identity.GetPluginCapabilities');
    expect(identity['capabilities']).toContainEqual({
      ...{ service: { type: 2 }, volume_expansion: null },
    });
  });
});

describe('the node service', () => {
  it.each([
    ['with a file system', mountOf()],
    ['that is a block device', blockOf(5)],
  ])('a volume %s is used and leaves nothing; each call is repeated', async (_kind, capability) => {
    for (const [method, request] of life(capability)) {
      const first = await client.call(method, request);
      expect(await client.call(method, request), method).toEqual(first);
    }
    expect(world.leftovers()).toEqual(NOTHING);
  });

  it('the wrong order has its codes and leaves nothing', async () => {
    const codes = async () => {
      const all: string[] = [];
      for (const [method, request] of life(mountOf()).slice(1)) {
        all.push(await client.codeOf(method, request));
      }
      return all;
    };
    const absent = ['NOT_FOUND', 'NOT_FOUND', 'NOT_FOUND', 'OK', 'OK'];
    expect(await codes()).toEqual(absent);
    await client.call('Node.NodeStageVolume', stageOf());
    await client.call('Node.NodePublishVolume', publishOf());
    expect(await client.codeOf('Node.NodeUnstageVolume', UNSTAGE)).toBe('FAILED_PRECONDITION');
    const readonly = publishOf({ readonly: true });
    expect(await client.codeOf('Node.NodePublishVolume', readonly)).toBe('ALREADY_EXISTS');
    const other = stageOf({ staging_target_path: '/staging/w' });
    expect(await client.codeOf('Node.NodeStageVolume', other)).toBe('ALREADY_EXISTS');
    await client.call('Node.NodeUnpublishVolume', UNPUBLISH);
    await client.call('Node.NodeUnstageVolume', UNSTAGE);
    expect(await client.codeOf('Node.NodePublishVolume', publishOf())).toBe('FAILED_PRECONDITION');
    expect(world.leftovers()).toEqual(NOTHING);
  });

  it('the second of two simultaneous calls for a volume gets ABORTED', async () => {
    let goOn = () => {};
    world.pause = new Promise((resolve) => {
      goOn = resolve;
    });
    const first = client.codeOf('Node.NodeStageVolume', stageOf());
    const second = client.codeOf('Node.NodeStageVolume', stageOf());
    expect(await Promise.race([first, second])).toBe('ABORTED');
    world.pause = null;
    goOn();
    expect((await Promise.all([first, second])).sort()).toEqual(['ABORTED', 'OK']);
  });

  it('what the target and the host do has its codes', async () => {
    const stage = (lun: string, more: Answer = {}) => {
      const iqn = { targetPortal: '192.0.2.1', iqn: TARGET };
      const request = stageOf({ volume_context: { ...iqn, lun, ...more } });
      return client.codeOf('Node.NodeStageVolume', request);
    };
    world.addDisk(2, { hasData: true });
    world.addDisk(3, { lunState: 'away' });
    expect(await stage('2')).toBe('FAILED_PRECONDITION');
    expect(await stage('3')).toBe('UNAVAILABLE');
    expect(await stage('9')).toBe('NOT_FOUND');
    expect(await stage('1', { diskId: 'another' })).toBe('FAILED_PRECONDITION');
    world.failing = { mount: { status: 32, stdout: '', stderr: 'wrong fs type' } };
    expect(await stage('1')).toBe('INTERNAL');
    world.failing = {};
    world.isDaemonUp = false;
    expect(await stage('1')).toBe('UNAVAILABLE');
    world.isDaemonUp = true;
    expect(world.leftovers()).toEqual(NOTHING);
    expect(await stage('1')).toBe('OK');
    const elsewhere = { ...STATS, volume_path: 'some/path' };
    expect(await client.codeOf('Node.NodeGetVolumeStats', elsewhere)).toBe('NOT_FOUND');
    expect(await client.codeOf('Node.NodeExpandVolume', elsewhere)).toBe('NOT_FOUND');
    const larger = { ...STATS, capacity_range: { required_bytes: '99999999999' } };
    expect(await client.codeOf('Node.NodeExpandVolume', larger)).toBe('OUT_OF_RANGE');
    expect(failures).toEqual([]);
  });

  it.each(BAD_FIELDS)('%s with a bad %s (%#) is INVALID_ARGUMENT', async (method, field, value) => {
    const bad = { ...stageOf(), ...publishOf(), ...STATS, [field]: value };
    expect(await client.codeOf(`Node.${method}`, bad)).toBe('INVALID_ARGUMENT');
    expect(world.leftovers()).toEqual(NOTHING);
    expect(failures).toEqual([]);
  });

  it('a volume for one pod is refused to a second one, and a read-only one is read-only', async () => {
    await client.call('Node.NodeStageVolume', stageOf({ volume_capability: mountOf(6) }));
    await client.call('Node.NodePublishVolume', publishOf({ volume_capability: mountOf(6) }));
    const second = publishOf({ volume_capability: mountOf(6), target_path: '/pods/2/volume' });
    expect(await client.codeOf('Node.NodePublishVolume', second)).toBe('FAILED_PRECONDITION');
    const reader = publishOf({ volume_capability: mountOf(3), target_path: '/pods/3/volume' });
    await client.call('Node.NodePublishVolume', reader);
    expect(world.mountTable.at(-1)?.options).toEqual(['ro']);
  });

  it('statistics have bytes, inodes and the condition of the disk', async () => {
    await client.call('Node.NodeStageVolume', stageOf());
    await client.call('Node.NodePublishVolume', publishOf());
    const good = await client.call('Node.NodeGetVolumeStats', STATS);
    expect(good['usage']).toMatchObject([{ unit: 1 }, { total: '1000', used: '100', unit: 2 }]);
    expect(good['volume_condition']).toMatchObject({ abnormal: false });
    world.addDisk(1, { lunState: 'away' });
    const away = await client.call('Node.NodeGetVolumeStats', STATS);
    expect(away['volume_condition']).toMatchObject({ abnormal: true, message: /is away/ });
  });

  it('a plugin that was killed and started again goes on with its volumes', async () => {
    await client.call('Node.NodeStageVolume', stageOf());
    await client.call('Node.NodePublishVolume', publishOf());
    client.close();
    await server.close();
    await startPlugin();
    for (const [method, request] of life(mountOf())) await client.call(method, request);
    expect(world.leftovers()).toEqual(NOTHING);
  });
});

describe('attributes of other drivers', () => {
  const CHAP = {
    'node.session.auth.username': 'user',
    'node.session.auth.password': 'a password',
  };
  const MUTUAL = {
    'node-db.node.session.auth.authmethod': 'CHAP',
    'node-db.node.session.auth.username': 'user',
    'node-db.node.session.auth.password': 'a password',
    'node-db.node.session.auth.username_in': 'target',
    'node-db.node.session.auth.password_in': 'another one',
  };

  it.each([
    [
      'csi-driver-iscsi',
      {
        ...{ targetPortal: '192.0.2.1:3260', portals: '["192.0.2.2","192.0.2.3:3261"]' },
        ...{ iqn: TARGET, lun: '1', iscsiInterface: 'default' },
        ...{ discoveryCHAPAuth: 'true', sessionCHAPAuth: 'true' },
      },
      CHAP,
      { portals: ['192.0.2.2:3260', '192.0.2.3:3261'], chapUser: 'user' },
    ],
    [
      "Kubernetes' own volumes",
      {
        ...{ targetPortal: '192.0.2.1', portals: '[]', iqn: TARGET, lun: '1', fsType: 'ext4' },
        ...{ initiatorName: 'iqn.2001-04.com.example:node', chapAuthSession: 'true' },
        'csi.storage.k8s.io/pod.name': 'pod',
      },
      CHAP,
      { initiatorName: 'iqn.2001-04.com.example:node', chapUser: 'user' },
    ],
    [
      "democratic-csi's node-manual",
      {
        ...{ node_attach_driver: 'iscsi', provisioner_driver: 'node-manual' },
        ...{ portal: '192.0.2.1', portals: '192.0.2.2,192.0.2.3', iqn: TARGET, lun: '1' },
        ...{ interface: 'default', removalLatencySeconds: '300' },
      },
      MUTUAL,
      { removalLatencySeconds: '300', chapUser: 'user', targetChapUser: 'target' },
    ],
  ])('the attributes of %s name the disk', async (_driver, volume_context, secrets, options) => {
    await client.call('Node.NodeStageVolume', stageOf({ volume_context, secrets }));
    expect(world.logins[0]).toMatchObject({
      targetName: TARGET,
      portal: '192.0.2.1:3260',
      options,
    });
    expect(JSON.stringify([...world.stored.values(), world.logins])).not.toMatch(/a password/);
  });

  it.each([{ readOnly: 'True' }, { mountOptions: 'noatime,ro' }])(
    'the attributes %j make a volume that is not written',
    async (attributes) => {
      const volume_context = { targetPortal: '192.0.2.1', iqn: TARGET, lun: '1', ...attributes };
      const request = stageOf({ volume_context });
      // It is blank, and gets no file system.
      expect(await client.codeOf('Node.NodeStageVolume', request)).toBe('FAILED_PRECONDITION');
      expect(world.programs.filter((line) => line.startsWith('mk'))).toEqual([]);
    },
  );

  it.each([
    [{ lun: 'x' }, {}],
    [{ iqn: 'disk1' }, {}],
    [{ targetPortal: '' }, {}],
    [{ portals: '[1' }, {}],
    [{ removalLatncySeconds: '3' }, {}],
    [{ chapUser: 'user' }, {}],
    [{ readOnly: 'yes' }, {}],
    [{ mountOptions: 'noatime,loop' }, {}],
    [{ mountOptions: 'remount' }, {}],
    [{ mountOptions: 'rshared' }, {}],
    [{ sessionCHAPAuth: 'true' }, {}],
    [{}, { 'node.session.auth.username': 'user' }],
    [{}, { ...CHAP, 'node.session.auth.password_in': 'without a user' }],
  ])('the attributes %j and secrets (%#) are INVALID_ARGUMENT', async (attributes, secrets) => {
    const context = { targetPortal: '192.0.2.1', iqn: TARGET, lun: '1', ...attributes };
    const request = stageOf({ volume_context: context, secrets });
    expect(await client.codeOf('Node.NodeStageVolume', request)).toBe('INVALID_ARGUMENT');
    expect(world.leftovers()).toEqual(NOTHING);
  });
});

describe('the registration with the kubelet', () => {
  it('the kubelet finds the plugin by its socket and says how it went', async () => {
    const told: unknown[] = [];
    const registryPath = join(folder, 'reg.sock');
    const registration = await serveRegistration(
      { registryPath, endpoint: 'unix:///var/lib/kubelet/plugins/iscsi-nbd/csi.sock' },
      {
        onFailure: (error) => failures.push(error),
        onStatus: (...status) => told.push(status),
      },
    );
    // Kubelets before 1.29 or so name the path as the host.
    const kubelet = new CsiClient(registryPath, { 'grpc.default_authority': registryPath });
    expect(await kubelet.call('Registration.GetInfo')).toEqual({
      type: 'CSIPlugin',
      name: (await client.call('Identity.GetPluginInfo'))['name'],
      endpoint: '/var/lib/kubelet/plugins/iscsi-nbd/csi.sock',
      supported_versions: ['1.0.0'],
    });
    await kubelet.call('Registration.NotifyRegistrationStatus', { plugin_registered: true });
    await kubelet.call('Registration.NotifyRegistrationStatus', { error: 'no' });
    expect(told).toEqual([
      [true, ''],
      [false, 'no'],
    ]);
    kubelet.close();
    await registration.close();
  });
});
