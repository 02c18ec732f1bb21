import type { NbdExportInfo } from '../nbd/option.js';
import { NBD_FLAG } from '../nbd/wire.js';
import type { BlockDevice, ByteRange } from './block-device.js';
import type { UnitBudget } from './unit-budget.js';

/** A disk and what its clients may have under way. */
export interface ServedDisk {
  readonly device: BlockDevice;
  readonly budget: UnitBudget;
  /** Partitions that the client has made of the disk, if they are known. */
  readonly partitions?: () => readonly ByteRange[];
}

/** A disk under the name clients ask for. */
export interface NbdExport extends ServedDisk {
  readonly info: NbdExportInfo;
}

export interface NbdExportCatalog {
  list(): readonly NbdExport[];
  /** The empty name is the default export. */
  find(name: string): NbdExport | null;
}

/** Payload of one request at most; the kernel's own maximum (`max_sectors_kb`) is the same. */
export const NBD_PAYLOAD_BYTES_MAX = 32 << 20;

export type ExportCapabilities = {
  /** The disk answers GET LBA STATUS. */
  readonly blockStatus: boolean;
  readonly trim: boolean;
  readonly writeZeroes: boolean;
  readonly rotational: boolean;
  readonly physicalBlockBytes: number;
};

/** Transmission flags for a disk: only what it can do is offered. */
export function transmissionFlags(device: BlockDevice, capabilities: ExportCapabilities): number {
  // One flush covers the writes of all connections: they share the disk below.
  let flags =
    NBD_FLAG.HAS_FLAGS | NBD_FLAG.SEND_FLUSH | NBD_FLAG.SEND_FUA | NBD_FLAG.CAN_MULTI_CONN;
  flags |= NBD_FLAG.SEND_DF;
  if (device.readOnly) flags |= NBD_FLAG.READ_ONLY;
  if (capabilities.rotational) flags |= NBD_FLAG.ROTATIONAL;
  if (capabilities.trim && !device.readOnly) flags |= NBD_FLAG.SEND_TRIM;
  if (capabilities.writeZeroes && !device.readOnly) {
    // Every disk can say at once whether it has a fast way ("Transmission flags").
    flags |= NBD_FLAG.SEND_WRITE_ZEROES | NBD_FLAG.SEND_FAST_ZERO;
  }
  return flags;
}

/** What a client learns of the disk in the handshake. */
export function exportInfo(
  name: string,
  description: string,
  device: BlockDevice,
  capabilities: ExportCapabilities,
): NbdExportInfo {
  return {
    name,
    description,
    sizeBytes: device.sizeBytes,
    transmissionFlags: transmissionFlags(device, capabilities),
    minimumBlockBytes: device.blockSizeBytes,
    preferredBlockBytes: Math.min(
      NBD_PAYLOAD_BYTES_MAX,
      Math.max(4096, capabilities.physicalBlockBytes, device.blockSizeBytes),
    ),
    maximumBlockBytes: NBD_PAYLOAD_BYTES_MAX,
    blockStatus: capabilities.blockStatus,
  };
}
