import * as z from 'zod';
import { ACCESS_STATES } from '../scsi/target-port-groups.js';

/** What `check` found: the schema is what `--json` prints, so its names are a promise. */

const count = z.number().int().min(0);
const bytes = z.number().min(0);
const milliseconds = z.number().min(0);
const digest = z.enum(['None', 'CRC32C']);

/** How a read of one size goes; the commands under way together are `inFlight`. */
const readSpeedSchema = z.object({
  sizeBytes: count,
  inFlight: count,
  reads: count,
  readsPerSecond: z.number().min(0),
  bytesPerSecond: z.number().min(0),
  medianMs: milliseconds,
});

const portGroupSchema = z.object({
  group: count,
  state: z.enum(ACCESS_STATES),
  preferred: z.boolean(),
  ports: z.array(count),
  /** The portal that was logged in to belongs to it; null: not told. */
  isOurs: z.boolean().nullable(),
});

const diskSchema = z.object({
  revision: z.string(),
  sizeBytes: bytes,
  blockSizeBytes: count,
  physicalBlockSizeBytes: count,
  readOnly: z.boolean(),
  identity: z.object({
    /**
     * How well it is identified after an outage: by a name from a worldwide registry, by one that
     * a vendor or an administrator chose, by a serial number alone, or not at all.
     */
    strength: z.enum(['worldwide', 'chosen', 'serial', 'none']),
    name: z.string().nullable(),
  }),
  writeCache: z.enum(['volatile', 'none', 'notTold', 'notRead']),
  fua: z.boolean(),
  /** False: one command at a time. */
  commandQueuing: z.boolean(),
  discard: z.object({
    unmap: z.boolean(),
    writeSame: z.boolean(),
    granularityBytes: bytes,
    /** Of one UNMAP command; null: no limit. */
    unmapBytesMax: bytes.nullable(),
    readsZero: z.boolean(),
  }),
  /** Of one READ or WRITE; null: no limit is reported. */
  transferBytesMax: bytes.nullable(),
  rotational: z.boolean().nullable(),
  portGroups: z.object({
    /** Who changes the state of a group: target, initiator, or both; none: there are none. */
    changedBy: z.enum(['none', 'target', 'initiator', 'both']),
    groups: z.array(portGroupSchema),
    /** Why the groups are not known. */
    error: z.string().nullable(),
  }),
  notes: z.array(z.string()),
  speed: z.array(readSpeedSchema),
  /** Why reading was not measured, or ended early. */
  speedError: z.string().nullable(),
});

const lunSchema = z.object({
  lun: count,
  type: z.string(),
  vendor: z.string(),
  product: z.string(),
  /** Null: it cannot be used, or is no disk. */
  disk: diskSchema.nullable(),
  /** Why it cannot be used; null also for what is no disk. */
  error: z.string().nullable(),
});

const loginSchema = z.object({
  authentication: z.enum(['none', 'CHAP', 'mutual CHAP']),
  headerDigest: digest,
  dataDigest: digest,
  /** Digests the target agrees to if they are offered; null: it could not be tried. */
  digestsAccepted: z.object({ header: z.boolean(), data: z.boolean() }).nullable(),
  keys: z.array(
    z.object({
      key: z.string(),
      offered: z.string().nullable(),
      declaredByTarget: z.string().nullable(),
      inForce: z.string(),
    }),
  ),
});

const hostSchema = z.object({
  /** Whether LUNs can be made `/dev/nbdX` here. `serve` works in any case. */
  canAttach: z.boolean(),
  /** Why not, and what to do; null if it can. */
  whyNot: z.string().nullable(),
  localAddress: z.string().nullable(),
  /** The network interface of that address, and its MTU. */
  interface: z.string().nullable(),
  mtuBytes: count.nullable(),
});

export const checkSchema = z.object({
  target: z.object({
    name: z.string(),
    alias: z.string().nullable(),
    portal: z.string(),
    /** The numeric address and port of the connection; null: it went this very moment. */
    address: z.string().nullable(),
    portalGroupTag: count.nullable(),
    /** What a discovery at this portal lists for the target; null: it could not be asked. */
    portals: z.array(z.string()).nullable(),
  }),
  login: loginSchema,
  /** What the target does against RFC 7143 and the session lives with. */
  quirks: z.array(
    z.object({ quirk: z.string(), section: z.string(), what: z.string(), nextStep: z.string() }),
  ),
  roundTrip: z.object({
    count,
    minMs: milliseconds,
    medianMs: milliseconds,
    maxMs: milliseconds,
  }),
  luns: z.array(lunSchema),
  host: hostSchema,
  /** Options that fit this target, best first, and remarks (null) that no option is for. */
  advice: z.array(z.object({ option: z.string().nullable(), why: z.string() })),
});

export type CheckReport = z.output<typeof checkSchema>;
export type LunCheck = CheckReport['luns'][number];
export type DiskCheck = NonNullable<LunCheck['disk']>;
export type ReadSpeed = z.output<typeof readSpeedSchema>;
