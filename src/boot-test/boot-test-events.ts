import * as z from 'zod';
import type { BootMachineFacts, BootReason, BootVerdict } from '../config/contract.js';

const about = {
  time: z.iso.datetime(),
  sessionId: z.string().regex(/^[0-9a-f]{16}$/),
  lun: z.number().int().min(0),
};

const machine = {
  accelerator: z.enum(['kvm', 'tcg']),
  qemuVersion: z.string(),
} satisfies Record<keyof BootMachineFacts, z.ZodType>;

const reasons = [
  'expected',
  'failPattern',
  'panicked',
  'shutdown',
  'resets',
  'qemuEnded',
  'timeout',
] as const satisfies readonly BootReason[];

const verdict = {
  passed: z.boolean(),
  reason: z.enum(reasons),
  line: z.string().optional(),
  resets: z.number().int().min(0),
  lastLines: z.array(z.string()),
} satisfies Record<Exclude<keyof BootVerdict, 'elapsedMs'>, z.ZodType>;

/** A line of `boot-test --json` that is no event of its session. */
export const bootTestSchema = z.discriminatedUnion('event', [
  z.object({
    event: z.literal('bootStarted'),
    ...about,
    ...machine,
    firmware: z.enum(['bios', 'uefi']),
    memoryMiB: z.number().int(),
    cpus: z.number().int(),
    write: z.boolean(),
  }),
  z.object({ event: z.literal('console'), ...about, line: z.string() }),
  z.object({
    event: z.literal('verdict'),
    ...about,
    ...verdict,
    elapsedSeconds: z.number().min(0),
    exitCode: z.number().int(),
    screenshot: z.string().optional(),
    overlay: z.string().optional(),
  }),
]);
