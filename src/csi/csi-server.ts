import { mkdir } from 'node:fs/promises';
import { createServer } from 'node:net';
import { dirname } from 'node:path';
import {
  type handleUnaryCall,
  loadPackageDefinition,
  Server,
  ServerCredentials,
  type ServiceDefinition,
  status,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js';
import { fromJSON } from '@grpc/proto-loader';
import { isForeignFault, UsageError } from '../base/errors.js';
import { EXIT_CODES } from '../errors/exit-codes.js';
import { freeSocketPath } from '../io/unix-socket-path.js';
import { VolumeError, type VolumeFault } from '../volume/volume-error.js';
import { FilteredConnection } from './authority-filter.js';
import type { CsiController } from './csi-controller.js';
import {
  ACCESSIBILITY_CONSTRAINTS,
  CONTROLLER_SERVICE,
  CSI_INTERFACE,
  EXPANSION_ONLINE,
} from './csi-interface.js';
import type { CsiNode } from './csi-node.js';

/** By reverse domain notation, as the specification asks; 63 characters at most. */
export const DRIVER_NAME = 'iscsi-nbd.csi.local';
/** The socket gives root's mounts: it is for its owner. */
const SOCKET_UMASK = 0o177;
const MESSAGE_BYTES_MAX = 1 << 20;
const SCHEME = 'unix://';

/** The specification's table of error codes, "Error Scheme". */
const CODES: Readonly<Record<VolumeFault, status>> = {
  invalid: status.INVALID_ARGUMENT,
  notFound: status.NOT_FOUND,
  exists: status.ALREADY_EXISTS,
  busy: status.ABORTED,
  refused: status.FAILED_PRECONDITION,
  unavailable: status.UNAVAILABLE,
  outOfRange: status.OUT_OF_RANGE,
  unauthenticated: status.UNAUTHENTICATED,
  denied: status.PERMISSION_DENIED,
  failed: status.INTERNAL,
};

const PACKAGE = loadPackageDefinition(
  fromJSON(CSI_INTERFACE, { keepCase: true, longs: String, defaults: true, arrays: true }),
);

export type CsiOptions = {
  readonly node: CsiNode;
  /** Null: volumes are written down by hand only. */
  readonly controller: CsiController | null;
  readonly version: string;
  readonly onFailure: (error: unknown) => void;
};

type Services = readonly (readonly [ServiceDefinition, UntypedServiceImplementation])[];

export type Serving = { close(): Promise<void> };

/** Serves all of it on a unix socket. Throws UsageError if that cannot be had. */
export function serveCsi(endpoint: string, options: CsiOptions): Promise<Serving> {
  const { node, controller, version } = options;
  const identity = {
    GetPluginInfo: async () => ({ name: DRIVER_NAME, vendor_version: version }),
    GetPluginCapabilities: async () => ({
      capabilities: [
        { volume_expansion: { type: EXPANSION_ONLINE } },
        ...(controller === null ? [] : [{ service: { type: CONTROLLER_SERVICE } }]),
        ...(node.hasTopology ? [{ service: { type: ACCESSIBILITY_CONSTRAINTS } }] : []),
      ],
    }),
    Probe: async () => ({ ready: { value: true } }),
  };
  const calls = {
    NodeStageVolume: node.stage.bind(node),
    NodeUnstageVolume: node.unstage.bind(node),
    NodePublishVolume: node.publish.bind(node),
    NodeUnpublishVolume: node.unpublish.bind(node),
    NodeGetVolumeStats: node.stats.bind(node),
    NodeExpandVolume: node.expand.bind(node),
    NodeGetCapabilities: async () => node.capabilities(),
    NodeGetInfo: async () => node.info(),
  };
  const { onFailure } = options;
  const services: Services = [
    [serviceOf('csi', 'v1', 'Identity'), handlers(identity, onFailure)],
    [serviceOf('csi', 'v1', 'Node'), handlers(calls, onFailure)],
  ];
  if (controller === null) return listen(endpoint, services);
  const orders = {
    CreateVolume: controller.create.bind(controller),
    DeleteVolume: controller.delete.bind(controller),
    ValidateVolumeCapabilities: controller.validate.bind(controller),
    ControllerGetCapabilities: async () => controller.capabilities(),
  };
  const service = serviceOf('csi', 'v1', 'Controller');
  return listen(endpoint, [...services, [service, handlers(orders, onFailure)]]);
}

/**
 * Tells the kubelet of the plugin, by a socket in its plugins_registry that it watches, so that no
 * sidecar is needed (pluginregistration v1).
 */
export function serveRegistration(
  options: { readonly registryPath: string; readonly endpoint: string },
  hooks: {
    readonly onFailure: (error: unknown) => void;
    readonly onStatus: (isRegistered: boolean, error: string) => void;
  },
): Promise<Serving> {
  const endpoint = options.endpoint.replace(SCHEME, '');
  const info = { type: 'CSIPlugin', name: DRIVER_NAME, endpoint, supported_versions: ['1.0.0'] };
  const calls = {
    GetInfo: async () => info,
    NotifyRegistrationStatus: async (told: { plugin_registered: boolean; error: string }) => {
      hooks.onStatus(told.plugin_registered, told.error);
      return {};
    },
  };
  return listen(`${SCHEME}${options.registryPath}`, [
    [serviceOf('pluginregistration', 'Registration'), handlers(calls, hooks.onFailure)],
  ]);
}

/** What a client calls, for tests. */
export function serviceOf(...names: readonly string[]): ServiceDefinition {
  let place: unknown = PACKAGE;
  for (const name of names) place = Object(place)[name];
  return Object(place).service;
}

async function listen(endpoint: string, services: Services): Promise<Serving> {
  const path = endpoint.startsWith(SCHEME) ? endpoint.slice(SCHEME.length) : endpoint;
  if (!path.startsWith('/')) {
    throw new UsageError(`--endpoint ${endpoint} is not unix:///<path>; nothing else is served.`);
  }
  await mkdir(dirname(path), { recursive: true, mode: 0o755 });
  if ((await freeSocketPath(path)) !== null) {
    throw new UsageError(`${path}: another process listens there, or it is a file.`, {
      exitCode: EXIT_CODES.busy.code,
    });
  }
  const server = new Server({
    'grpc.max_receive_message_length': MESSAGE_BYTES_MAX,
    'grpc.enable_channelz': 0,
  });
  for (const [definition, implementation] of services) {
    server.addService(definition, implementation);
  }
  const injector = server.createConnectionInjector(ServerCredentials.createInsecure());
  const listener = createServer({ allowHalfOpen: true }, (socket) => {
    injector.injectConnection(new FilteredConnection(socket));
  });
  await new Promise<void>((resolve, reject) => {
    const before = process.umask(SOCKET_UMASK);
    const end = (finish: () => void) => () => {
      process.umask(before);
      finish();
    };
    listener.once('listening', end(resolve));
    listener.once('error', (error) => {
      end(() => reject(new UsageError(`${path} cannot be listened on: ${error.message}.`)))();
    });
    listener.listen(path);
  });
  return {
    close: () =>
      new Promise((resolve) => {
        listener.close();
        server.tryShutdown(() => resolve());
      }),
  };
}

type Call<Request> = (request: Request) => Promise<unknown>;

/** Promises as gRPC's callbacks, and errors as its codes. */
function handlers(
  calls: Readonly<Record<string, Call<never>>>,
  onFailure: (error: unknown) => void,
): UntypedServiceImplementation {
  return Object.fromEntries(
    Object.entries(calls).map(([name, call]) => {
      const handle: handleUnaryCall<unknown, unknown> = ({ request }, reply) => {
        call(request as never).then(
          (response) => reply(null, response),
          (error: unknown) => reply(faultOf(error, onFailure)),
        );
      };
      return [name, handle];
    }),
  );
}

function faultOf(error: unknown, onFailure: (error: unknown) => void) {
  if (error instanceof VolumeError) return { code: CODES[error.fault], details: error.message };
  if (isForeignFault(error)) return { code: status.INTERNAL, details: error.message };
  onFailure(error);
  return { code: status.INTERNAL, details: 'internal error; see the log of iscsi-nbd csi' };
}
