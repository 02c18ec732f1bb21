/**
 * The messages of the Container Storage Interface 1.12 that this node answers, and those of the
 * kubelet's plugin registration: names and field numbers, as both specifications give them. What is
 * not here (snapshots, groups) is skipped in what arrives and never sent.
 */

type FieldType = 'string' | 'bool' | 'int32' | 'int64' | (string & {});
/** A field: its number, its type, and if it is a list or a map of texts to texts. */
type Field =
  | readonly [number: number, type: FieldType]
  | readonly [number: number, type: FieldType, shape: 'list' | 'map'];
type Message = Readonly<Record<string, Field>>;

const texts = (number: number): Field => [number, 'string', 'map'];

const CSI_MESSAGES = {
  Empty: {},
  BoolValue: { value: [1, 'bool'] },
  GetPluginInfoResponse: { name: [1, 'string'], vendor_version: [2, 'string'], manifest: texts(3) },
  TypeOnly: { type: [1, 'int32'] },
  PluginCapability: { service: [1, 'TypeOnly'], volume_expansion: [2, 'TypeOnly'] },
  GetPluginCapabilitiesResponse: { capabilities: [1, 'PluginCapability', 'list'] },
  ProbeResponse: { ready: [1, 'BoolValue'] },
  MountVolume: {
    fs_type: [1, 'string'],
    mount_flags: [2, 'string', 'list'],
    volume_mount_group: [3, 'string'],
  },
  AccessMode: { mode: [1, 'int32'] },
  VolumeCapability: {
    block: [1, 'Empty'],
    mount: [2, 'MountVolume'],
    access_mode: [3, 'AccessMode'],
  },
  CapacityRange: { required_bytes: [1, 'int64'], limit_bytes: [2, 'int64'] },
  Topology: { segments: texts(1) },
  RpcCapability: { rpc: [1, 'TypeOnly'] },
  Volume: { capacity_bytes: [1, 'int64'], volume_id: [2, 'string'], volume_context: texts(3) },
  CreateVolumeRequest: {
    name: [1, 'string'],
    capacity_range: [2, 'CapacityRange'],
    volume_capabilities: [3, 'VolumeCapability', 'list'],
    parameters: texts(4),
    secrets: texts(5),
  },
  CreateVolumeResponse: { volume: [1, 'Volume'] },
  DeleteVolumeRequest: { volume_id: [1, 'string'], secrets: texts(2) },
  ValidateVolumeCapabilitiesRequest: {
    volume_id: [1, 'string'],
    volume_context: texts(2),
    volume_capabilities: [3, 'VolumeCapability', 'list'],
    parameters: texts(4),
    secrets: texts(5),
  },
  Confirmed: { volume_context: texts(1), volume_capabilities: [2, 'VolumeCapability', 'list'] },
  ValidateVolumeCapabilitiesResponse: { confirmed: [1, 'Confirmed'], message: [2, 'string'] },
  ControllerGetCapabilitiesResponse: { capabilities: [1, 'RpcCapability', 'list'] },
  NodeStageVolumeRequest: {
    volume_id: [1, 'string'],
    publish_context: texts(2),
    staging_target_path: [3, 'string'],
    volume_capability: [4, 'VolumeCapability'],
    secrets: texts(5),
    volume_context: texts(6),
  },
  NodeUnstageVolumeRequest: { volume_id: [1, 'string'], staging_target_path: [2, 'string'] },
  NodePublishVolumeRequest: {
    volume_id: [1, 'string'],
    publish_context: texts(2),
    staging_target_path: [3, 'string'],
    target_path: [4, 'string'],
    volume_capability: [5, 'VolumeCapability'],
    readonly: [6, 'bool'],
    secrets: texts(7),
    volume_context: texts(8),
  },
  NodeUnpublishVolumeRequest: { volume_id: [1, 'string'], target_path: [2, 'string'] },
  NodeGetVolumeStatsRequest: {
    volume_id: [1, 'string'],
    volume_path: [2, 'string'],
    staging_target_path: [3, 'string'],
  },
  VolumeUsage: {
    available: [1, 'int64'],
    total: [2, 'int64'],
    used: [3, 'int64'],
    unit: [4, 'int32'],
  },
  VolumeCondition: { abnormal: [1, 'bool'], message: [2, 'string'] },
  NodeGetVolumeStatsResponse: {
    usage: [1, 'VolumeUsage', 'list'],
    volume_condition: [2, 'VolumeCondition'],
  },
  NodeGetCapabilitiesResponse: { capabilities: [1, 'RpcCapability', 'list'] },
  NodeGetInfoResponse: {
    node_id: [1, 'string'],
    max_volumes_per_node: [2, 'int64'],
    accessible_topology: [3, 'Topology'],
  },
  NodeExpandVolumeRequest: {
    volume_id: [1, 'string'],
    volume_path: [2, 'string'],
    capacity_range: [3, 'CapacityRange'],
    staging_target_path: [4, 'string'],
    volume_capability: [5, 'VolumeCapability'],
    secrets: texts(6),
  },
  NodeExpandVolumeResponse: { capacity_bytes: [1, 'int64'] },
} as const satisfies Readonly<Record<string, Message>>;

const REGISTRATION_MESSAGES = {
  InfoRequest: {},
  PluginInfo: {
    type: [1, 'string'],
    name: [2, 'string'],
    endpoint: [3, 'string'],
    supported_versions: [4, 'string', 'list'],
  },
  RegistrationStatus: { plugin_registered: [1, 'bool'], error: [2, 'string'] },
  RegistrationStatusResponse: {},
} as const satisfies Readonly<Record<string, Message>>;

type Methods = Readonly<Record<string, readonly [request: string, response: string]>>;

const SERVICES = {
  Identity: {
    GetPluginInfo: ['Empty', 'GetPluginInfoResponse'],
    GetPluginCapabilities: ['Empty', 'GetPluginCapabilitiesResponse'],
    Probe: ['Empty', 'ProbeResponse'],
  },
  Controller: {
    CreateVolume: ['CreateVolumeRequest', 'CreateVolumeResponse'],
    DeleteVolume: ['DeleteVolumeRequest', 'Empty'],
    ValidateVolumeCapabilities: [
      'ValidateVolumeCapabilitiesRequest',
      'ValidateVolumeCapabilitiesResponse',
    ],
    ControllerGetCapabilities: ['Empty', 'ControllerGetCapabilitiesResponse'],
  },
  Node: {
    NodeStageVolume: ['NodeStageVolumeRequest', 'Empty'],
    NodeUnstageVolume: ['NodeUnstageVolumeRequest', 'Empty'],
    NodePublishVolume: ['NodePublishVolumeRequest', 'Empty'],
    NodeUnpublishVolume: ['NodeUnpublishVolumeRequest', 'Empty'],
    NodeGetVolumeStats: ['NodeGetVolumeStatsRequest', 'NodeGetVolumeStatsResponse'],
    NodeExpandVolume: ['NodeExpandVolumeRequest', 'NodeExpandVolumeResponse'],
    NodeGetCapabilities: ['Empty', 'NodeGetCapabilitiesResponse'],
    NodeGetInfo: ['Empty', 'NodeGetInfoResponse'],
  },
} as const satisfies Readonly<Record<string, Methods>>;

const REGISTRATION = {
  Registration: {
    GetInfo: ['InfoRequest', 'PluginInfo'],
    NotifyRegistrationStatus: ['RegistrationStatus', 'RegistrationStatusResponse'],
  },
} as const satisfies Readonly<Record<string, Methods>>;

/** Both interfaces in the form that protobuf.js reads. */
export const CSI_INTERFACE = {
  nested: {
    csi: { nested: { v1: { nested: { ...types(CSI_MESSAGES), ...services(SERVICES) } } } },
    pluginregistration: {
      nested: { ...types(REGISTRATION_MESSAGES), ...services(REGISTRATION) },
    },
  },
};

/** Values of AccessMode.mode. */
export const AccessMode = {
  singleNodeWriter: 1,
  singleNodeReaderOnly: 2,
  multiNodeReaderOnly: 3,
  multiNodeSingleWriter: 4,
  multiNodeMultiWriter: 5,
  singleNodeSingleWriter: 6,
  singleNodeMultiWriter: 7,
} as const;

/** Values of VolumeUsage.unit. */
export const UsageUnit = { bytes: 1, inodes: 2 } as const;

/** Values of NodeServiceCapability.RPC.type that this node has. */
export const NODE_CAPABILITIES = {
  stageUnstageVolume: 1,
  getVolumeStats: 2,
  expandVolume: 3,
  volumeCondition: 4,
  singleNodeMultiWriter: 5,
} as const;

/** Values of ControllerServiceCapability.RPC.type that the controller has. */
export const CONTROLLER_CAPABILITIES = {
  createDeleteVolume: 1,
  singleNodeMultiWriter: 13,
} as const;

/** PluginCapability.Service.type: there is a controller. */
export const CONTROLLER_SERVICE = 1;
/** PluginCapability.Service.type: the nodes say where they are. */
export const ACCESSIBILITY_CONSTRAINTS = 2;
/** PluginCapability.VolumeExpansion.type: while the volume is in use. */
export const EXPANSION_ONLINE = 1;

function types(messages: Readonly<Record<string, Message>>) {
  return Object.fromEntries(
    Object.entries(messages).map(([name, fields]) => {
      const entries = Object.entries(fields).map(([field, [id, type, shape]]) => {
        const map = shape === 'map' ? { keyType: 'string' } : {};
        const rule = shape === 'list' ? { rule: 'repeated' } : {};
        return [field, { id, type, ...map, ...rule }];
      });
      return [name, { fields: Object.fromEntries(entries) }];
    }),
  );
}

function services(all: Readonly<Record<string, Methods>>) {
  return Object.fromEntries(
    Object.entries(all).map(([name, methods]) => {
      const entries = Object.entries(methods).map(([method, [requestType, responseType]]) => {
        return [method, { requestType, responseType }];
      });
      return [name, { methods: Object.fromEntries(entries) }];
    }),
  );
}
