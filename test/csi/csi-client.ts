/** A client of the Container Storage Interface, as an orchestrator has one. */
import { Client, credentials, type ServiceError, status } from '@grpc/grpc-js';
import { serviceOf } from '../../src/csi/csi-server.js';

export type Answer = Readonly<Record<string, unknown>>;

export class CsiClient {
  readonly #client: Client;

  constructor(socketPath: string) {
    this.#client = new Client(`unix:${socketPath}`, credentials.createInsecure());
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
