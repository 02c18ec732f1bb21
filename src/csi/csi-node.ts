import { VolumeError } from '../volume/volume-error.js';
import type { Volumes } from '../volume/volumes.js';
import { type Capability, readSecrets, readVolumeContext } from './csi-attributes.js';
import { AccessMode, NODE_CAPABILITIES, UsageUnit } from './csi-interface.js';
import type {
  CapabilityMessage,
  ExpandMessage,
  PublishMessage,
  StageMessage,
  StatsMessage,
  UnpublishMessage,
  UnstageMessage,
} from './csi-messages.js';

/** Of the specification, "Size Limits": an id has at most 128 bytes, a map at most 4 KiB. */
const ID_BYTES_MAX = 128;
const PATH_BYTES_MAX = 4096;
const READ_ONLY_MODES: readonly number[] = [
  AccessMode.singleNodeReaderOnly,
  AccessMode.multiNodeReaderOnly,
];
/** A file system of one node is destroyed by a second one that writes to it. */
const MODES_OF_CLUSTERS: readonly number[] = [
  AccessMode.multiNodeSingleWriter,
  AccessMode.multiNodeMultiWriter,
];

export type NodeIdentity = {
  readonly nodeId: string;
  /** Devices that the kernel's NBD driver can have; 0: not told. */
  readonly volumesMax: number;
  readonly topology: Readonly<Record<string, string>>;
};

/** The Node service of the Container Storage Interface, over the volumes of this node. */
export class CsiNode {
  readonly #volumes: Volumes;
  readonly #identity: NodeIdentity;

  constructor(volumes: Volumes, identity: NodeIdentity) {
    this.#volumes = volumes;
    this.#identity = identity;
  }

  get hasTopology(): boolean {
    return Object.keys(this.#identity.topology).length > 0;
  }

  async stage(request: StageMessage): Promise<unknown> {
    const volumeId = idOf(request.volume_id);
    const stagingPath = pathOf('staging_target_path', request.staging_target_path);
    const capability = capabilityOf(request.volume_capability);
    const context = request.volume_context;
    const spec = readVolumeContext(context, capability);
    const secrets = readSecrets(request.secrets, context);
    const path = capability.isBlock ? null : stagingPath;
    await this.#volumes.stage({ volumeId, spec, secrets, stagingPath: path });
    return {};
  }

  async unstage(request: UnstageMessage): Promise<unknown> {
    const volumeId = idOf(request.volume_id);
    const stagingPath = pathOf('staging_target_path', request.staging_target_path);
    await this.#volumes.unstage(volumeId, stagingPath);
    return {};
  }

  async publish(request: PublishMessage): Promise<unknown> {
    const volumeId = idOf(request.volume_id);
    const targetPath = pathOf('target_path', request.target_path);
    const capability = capabilityOf(request.volume_capability);
    if (request.staging_target_path === '') {
      const words = 'A volume is staged before it is published; staging_target_path is missing.';
      throw new VolumeError('refused', words);
    }
    const mode = request.volume_capability?.access_mode?.mode;
    await this.#volumes.publish({
      ...{ volumeId, targetPath },
      readOnly: request.readonly || capability.isReadOnly,
      isExclusive: mode === AccessMode.singleNodeSingleWriter,
    });
    return {};
  }

  async unpublish(request: UnpublishMessage): Promise<unknown> {
    const volumeId = idOf(request.volume_id);
    await this.#volumes.unpublish(volumeId, pathOf('target_path', request.target_path));
    return {};
  }

  async stats(request: StatsMessage): Promise<unknown> {
    const volumeId = idOf(request.volume_id);
    const path = placeOf(volumeId, request.volume_path);
    const { sizeBytes, fileSystem, condition } = await this.#volumes.report(volumeId, path);
    const volume_condition = { abnormal: condition.isAbnormal, message: condition.message };
    if (fileSystem === null) {
      return { usage: [{ total: sizeBytes, unit: UsageUnit.bytes }], volume_condition };
    }
    const { totalBytes, availableBytes, usedBytes, totalInodes, availableInodes } = fileSystem;
    const usage = [
      { total: totalBytes, available: availableBytes, used: usedBytes, unit: UsageUnit.bytes },
      {
        total: totalInodes,
        available: availableInodes,
        used: totalInodes - availableInodes,
        unit: UsageUnit.inodes,
      },
    ];
    return { usage, volume_condition };
  }

  async expand(request: ExpandMessage): Promise<unknown> {
    const volumeId = idOf(request.volume_id);
    placeOf(volumeId, request.volume_path);
    const required = Number(request.capacity_range?.required_bytes ?? 0);
    const limit = Number(request.capacity_range?.limit_bytes ?? 0);
    if (required < 0 || limit < 0 || (limit > 0 && limit < required)) {
      throw new VolumeError('invalid', `A volume cannot have ${required} to ${limit} bytes.`);
    }
    return { capacity_bytes: await this.#volumes.expand(volumeId, required) };
  }

  capabilities(): unknown {
    const types = Object.values(NODE_CAPABILITIES);
    return { capabilities: types.map((type) => ({ rpc: { type } })) };
  }

  info(): unknown {
    const { nodeId, volumesMax, topology } = this.#identity;
    const place = this.hasTopology ? { accessible_topology: { segments: topology } } : {};
    return { node_id: nodeId, max_volumes_per_node: volumesMax, ...place };
  }
}

function idOf(text: string): string {
  if (text === '') throw new VolumeError('invalid', 'volume_id is missing.');
  if (Buffer.byteLength(text) <= ID_BYTES_MAX) return text;
  throw new VolumeError('invalid', `volume_id has more than ${ID_BYTES_MAX} bytes.`);
}

function pathOf(name: string, text: string): string {
  if (text === '') throw new VolumeError('invalid', `${name} is missing.`);
  const isGood = text.startsWith('/') && !text.split('/').includes('..') && !text.includes('\0');
  if (isGood && text !== '/' && Buffer.byteLength(text) <= PATH_BYTES_MAX) return text;
  throw new VolumeError('invalid', `${name} is not an absolute path: ${text.slice(0, 100)}`);
}

/** Where a volume is said to be. No volume is at a relative path, and that has another code. */
function placeOf(volumeId: string, text: string): string {
  if (text === '' || text.startsWith('/')) return pathOf('volume_path', text);
  const words = `${text.slice(0, 100)} is no absolute path, so the volume ${volumeId} is not there`;
  throw new VolumeError('notFound', `${words}.`);
}

/** What the volume is to be used for. Throws VolumeError `invalid` where that cannot go well. */
export function capabilityOf(capability: CapabilityMessage | null | undefined): Capability {
  if (capability === null || capability === undefined) {
    throw new VolumeError('invalid', 'volume_capability is missing.');
  }
  const { block, mount, access_mode } = capability;
  const mode = access_mode?.mode ?? 0;
  const isBlock = block !== null && block !== undefined;
  if (isBlock === (mount !== null && mount !== undefined)) {
    throw new VolumeError('invalid', 'volume_capability has neither or both of block and mount.');
  }
  if (!Object.values(AccessMode).some((known) => known === mode)) {
    throw new VolumeError('invalid', `volume_capability has no access mode ${mode} of 1 to 7.`);
  }
  if (!isBlock && MODES_OF_CLUSTERS.includes(mode)) {
    throw new VolumeError(
      'invalid',
      'A file system that several nodes mount and one of them writes to is destroyed: the access ' +
        'mode is for block volumes only.',
    );
  }
  return {
    isBlock,
    fsType: mount?.fs_type ?? '',
    mountFlags: mount?.mount_flags ?? [],
    isReadOnly: READ_ONLY_MODES.includes(mode),
  };
}
