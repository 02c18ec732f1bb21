/** A client of the Container Storage Interface, as an orchestrator has one. */
import { Client, type ClientOptions, credentials, type ServiceError, status } from '@grpc/grpc-js';
import { serviceOf } from '../../src/csi/csi-server.js';

export type Answer = Readonly<Record<string, unknown>>;

export class CsiClient {
  readonly #client: Client;

  constructor(socketPath: string, options: ClientOptions = {}) {
    this.#client = new Client(`unix:${socketPath}`, credentials.createInsecure(), options);
  }

  /** `Node.NodeStageVolume`; rejects with gRPC's error. */
  call(method: string, request: unknown = {}): Promise<Answer> {
    const [service = '', name = ''] = method.split('.');
    const place = service === 'Registration' ? ['pluginregistration'] : ['csi', 'v1'];
    const definition = serviceOf(...place, service)[name];
    if (definition === undefined) throw new Error(`no method ${method}`);
    const { path, requestSerialize, responseDeserialize } = definition;
    return new Promise((resolve, reject) => {
      this.#client.makeUnaryRequest(
        path,
        requestSerialize,
        responseDeserialize,
        request,
        (error, answer) => (error === null ? resolve(answer as Answer) : reject(error)),
      );
    });
  }

  /** The code that a call ends with, by its name. */
  async codeOf(method: string, request: unknown = {}): Promise<string> {
    return this.call(method, request).then(
      () => 'OK',
      ({ code }: ServiceError) => status[code] ?? 'none',
    );
  }

  close(): void {
    this.#client.close();
  }
}

const ATTRIBUTES = { targetPortal: '192.0.2.1', iqn: 'iqn.2001-04.com.example:disk1', lun: '1' };

export function mountOf(mode = 1, fsType = 'ext4'): Answer {
  return { mount: { fs_type: fsType, mount_flags: [] }, access_mode: { mode } };
}

export function blockOf(mode = 1): Answer {
  return { block: {}, access_mode: { mode } };
}

export function stageOf(more: Answer = {}): Answer {
  return {
    volume_id: 'v',
    staging_target_path: '/staging/v',
    volume_capability: mountOf(),
    volume_context: ATTRIBUTES,
    ...more,
  };
}

export function publishOf(more: Answer = {}): Answer {
  return {
    volume_id: 'v',
    staging_target_path: '/staging/v',
    target_path: '/pods/1/volume',
    volume_capability: mountOf(),
    ...more,
  };
}

/** Calls of the Node service with one field that is not good, by method, field and value. */
export const BAD_FIELDS: readonly (readonly [string, string, unknown])[] = [
  ['NodeStageVolume', 'volume_id', ''],
  ['NodeStageVolume', 'volume_id', 'x'.repeat(129)],
  ['NodeStageVolume', 'staging_target_path', ''],
  ['NodeStageVolume', 'staging_target_path', 'relative'],
  ['NodeStageVolume', 'staging_target_path', '/a/../../etc'],
  ['NodeStageVolume', 'volume_capability', null],
  ['NodeStageVolume', 'volume_capability', { access_mode: { mode: 1 } }],
  ['NodeStageVolume', 'volume_capability', mountOf(0)],
  ['NodeStageVolume', 'volume_capability', mountOf(5)],
  ['NodeStageVolume', 'volume_capability', mountOf(8)],
  ['NodeStageVolume', 'volume_capability', mountOf(1, 'ntfs')],
  ['NodeStageVolume', 'volume_context', {}],
  ['NodePublishVolume', 'volume_id', ''],
  ['NodePublishVolume', 'target_path', ''],
  ['NodePublishVolume', 'target_path', '/'],
  ['NodePublishVolume', 'volume_capability', null],
  ['NodeUnpublishVolume', 'volume_id', ''],
  ['NodeUnpublishVolume', 'target_path', ''],
  ['NodeUnstageVolume', 'volume_id', ''],
  ['NodeUnstageVolume', 'staging_target_path', ''],
  ['NodeGetVolumeStats', 'volume_id', ''],
  ['NodeGetVolumeStats', 'volume_path', ''],
  ['NodeExpandVolume', 'volume_id', ''],
  ['NodeExpandVolume', 'volume_path', ''],
  ['NodeExpandVolume', 'capacity_range', { required_bytes: '-1' }],
  ['NodeExpandVolume', 'capacity_range', { required_bytes: 9, limit_bytes: 8 }],
];
