import * as z from 'zod';
import { bootTestSchema } from '../boot-test/boot-test-events.js';
import { checkSchema } from '../check/check-report.js';
import { persistentSchema } from '../control/control-results.js';
import type { Explanation } from '../errors/explanation.js';
import type { CapacityView, InquiryView } from '../session/scsi-queries.js';
import { pathSchema } from '../supervisor/path-report.js';
import { diskBytes } from '../supervisor/session-report.js';

/**
 * What commands print with `--json` of their own, beside what the daemon answers. docs/json-schema
 * is made of these; programs rely on them.
 */

const count = z.number().int().min(0);
const milliseconds = z.number().min(0);
const hex8 = z.string().regex(/^[0-9a-f]{2}$/);

const discoverSchema = z.array(
  z.object({
    name: z.string(),
    portals: z.array(
      z.object({ address: z.string(), port: count, portalGroupTag: count.nullable() }),
    ),
  }),
);

const lunsSchema = z.array(
  z.object({
    /** Text for a LUN that is not a plain number. */
    lun: z.union([count, z.string()]),
    type: z.string(),
    vendor: z.string(),
    product: z.string(),
    sizeBytes: diskBytes.optional(),
    /** Why a part is missing. */
    error: z.string().optional(),
  }),
);

const capacitySchema = z.object({
  lun: count,
  blockCount: count,
  blockSizeBytes: count,
  sizeBytes: diskBytes,
  physicalBlockSizeBytes: count,
  lowestAlignedBlock: count,
  protectionType: count,
  thinProvisioned: z.boolean(),
  unmappedReadsZero: z.boolean(),
}) satisfies z.ZodType<CapacityView>;

const standardInquirySchema = z.object({
  kind: z.literal('standard'),
  deviceTypeName: z.string(),
  peripheralQualifier: count,
  deviceType: count,
  removable: z.boolean(),
  version: count,
  responseDataFormat: count,
  targetPortGroupSupport: count,
  thirdPartyCopy: z.boolean(),
  protection: z.boolean(),
  commandQueuing: z.boolean(),
  vendor: z.string(),
  product: z.string(),
  revision: z.string(),
  versionDescriptors: z.array(count),
}) satisfies z.ZodType<Extract<InquiryView, { kind: 'standard' }>>;

/** A page this version has no decoder for is `hex`; others have fields of their own. */
const vpdSchema = z.looseObject({
  kind: z.literal('vpd'),
  page: hex8,
  name: z.string(),
  supportedPages: z.array(z.object({ page: hex8, name: z.string() })).optional(),
  serial: z.string().optional(),
  designators: z
    .array(
      z.object({
        type: z.string(),
        association: z.string(),
        codeSet: z.string(),
        text: z.string(),
      }),
    )
    .optional(),
  hex: z.string().optional(),
});

const pingSchema = z.object({
  count,
  bytes: count,
  minMs: milliseconds,
  averageMs: milliseconds,
  medianMs: milliseconds,
  p99Ms: milliseconds,
  maxMs: milliseconds,
  standardDeviationMs: milliseconds,
  roundTripsMs: z.array(milliseconds),
});

const explainSchema = z.object({
  kind: z.enum(['exitCode', 'loginStatus', 'sense', 'errno', 'accessState']),
  code: z.string(),
  name: z.string(),
  layer: z.string(),
  explanation: z.string(),
  nextStep: z.string(),
  reference: z.string(),
}) satisfies z.ZodType<Explanation>;

const importSchema = z.object({
  imported: z.array(
    z.object({
      TargetName: z.string(),
      TargetPortal: z.string(),
      LoginOptions: z.record(z.string(), z.unknown()),
    }),
  ),
  /** Files and targets that were left out, each with the reason. */
  skipped: z.array(z.string()),
  /** Values of open-iscsi that were replaced by ones that are possible here. */
  warnings: z.array(z.string()),
  dryRun: z.boolean(),
});

const logoutSchema = z.object({
  loggedOut: count,
  sessions: z.array(z.string().regex(/^[0-9a-f]{16}$/)),
});

/** `paths`. */
const pathsSchema = z.object({
  paths: z.array(
    pathSchema.extend({
      TargetiSCSIName: z.string(),
      /** The session that `session` shows; that of the path belongs to it. */
      mainSessionId: z.string().regex(/^[0-9a-f]{16}$/),
      /** Device or socket of the disk; null while it is not there. */
      device: z.string().nullable(),
    }),
  ),
});

const removedSchema = z.object({ removed: z.array(persistentSchema) });

/** The one line of `daemon --json`. */
const daemonReadySchema = z.object({
  event: z.literal('ready'),
  time: z.iso.datetime(),
  control: z.string(),
  pid: count,
});

/** A line of `demo --json` that is no event of its session. */
const demoSchema = z.looseObject({
  event: z.literal('demo'),
  time: z.iso.datetime(),
  step: z.enum(['target', 'session', 'disk', 'write', 'read', 'outage', 'end', 'result']),
  elapsedMs: count,
});

/** Each published schema by the name of its file. */
export const COMMAND_SCHEMAS = {
  discover: discoverSchema,
  luns: lunsSchema,
  inquiry: z.discriminatedUnion('kind', [standardInquirySchema, vpdSchema]),
  capacity: capacitySchema,
  ping: pingSchema,
  check: checkSchema,
  explain: explainSchema,
  import: importSchema,
  logout: logoutSchema,
  paths: pathsSchema,
  removed: removedSchema,
  'daemon-ready': daemonReadySchema,
  demo: demoSchema,
  'boot-test': bootTestSchema,
} as const;
