import * as z from 'zod';
import { RecordFolder } from './record-folder.js';
import { volumeSpecSchema } from './volume-spec.js';

/** Grows when an older iscsi-nbd could not read what is written. */
const RECORD_VERSION = 1;
/** Volumes a node keeps in mind; the oldest that are only `known` are forgotten beyond that. */
const RECORDS_MAX = 4096;
/** Paths one volume is published at: one a pod. */
export const TARGETS_MAX = 1024;

/** What tells the disk from others; as `devices` of the daemon reports it. */
const identitySchema = z.strictObject({
  vendor: z.string(),
  product: z.string(),
  serial: z.string(),
  identifiers: z.array(z.string()),
  deviceType: z.number(),
  blockSizeBytes: z.number(),
  blockCount: z.number(),
});

const recordSchema = z.strictObject({
  version: z.literal(RECORD_VERSION),
  volumeId: z.string(),
  spec: volumeSpecSchema,
  phase: z.enum(['known', 'staging', 'staged', 'unstaging']),
  /** /proc/sys/kernel/random/boot_id of the boot the record was written in. */
  bootId: z.string(),
  /** Where the file system is mounted; null for a block device and while it is not staged. */
  stagingPath: z.string().nullable(),
  /** The session was logged in for a volume, so that the last volume logs it out. */
  ownsSession: z.boolean(),
  device: z.string().nullable(),
  /** Null until the disk was seen. It stays when the volume goes. */
  identity: identitySchema.nullable(),
  targets: z.array(z.strictObject({ path: z.string(), readOnly: z.boolean() })).max(TARGETS_MAX),
});

export type VolumeRecord = z.output<typeof recordSchema>;
export type RecordedIdentity = z.output<typeof identitySchema>;

/** Where records are; a test has them in memory. */
export type VolumeRecords = {
  /** Every record that can be read; others are set aside as `.broken` and told of. */
  all(): Promise<{ readonly records: readonly VolumeRecord[]; readonly broken: readonly string[] }>;
  find(volumeId: string): Promise<VolumeRecord | null>;
  /** Resolves when it is on the disk. */
  save(record: VolumeRecord): Promise<void>;
  remove(volumeId: string): Promise<void>;
  /** Where a person finds the record of a volume. */
  placeOf(volumeId: string): string;
};

/** Records in a folder, one file a volume. */
export class VolumeRecordFiles extends RecordFolder<VolumeRecord> implements VolumeRecords {
  constructor(folder: string) {
    super({ folder, schema: recordSchema, keyOf: ({ volumeId }) => volumeId });
  }

  /** Keeps the folder from growing for ever on a node that sees many volumes in its life. */
  override async all(): Promise<{ records: VolumeRecord[]; broken: string[] }> {
    const { records, broken } = await super.all();
    const excess = records.length - RECORDS_MAX;
    if (excess <= 0) return { records, broken };
    const known = records.filter(({ phase }) => phase === 'known');
    const ages = await Promise.all(
      known.map(async (record) => ({ record, writtenAtMs: await this.ageOf(record.volumeId) })),
    );
    const oldest = ages
      .sort((one, other) => one.writtenAtMs - other.writtenAtMs)
      .slice(0, excess)
      .map(({ record }) => record);
    for (const { volumeId } of oldest) await this.remove(volumeId);
    return { records: records.filter((record) => !oldest.includes(record)), broken };
  }
}
