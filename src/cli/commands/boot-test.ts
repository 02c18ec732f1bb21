import { accessSync, constants, lstatSync, statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import type { Argv } from 'yargs';
import { codeOf, UsageError } from '../../base/errors.js';
import {
  compilePattern,
  EXPECT_DEFAULT,
  FAIL_DEFAULT,
} from '../../boot-test/boot-test-patterns.js';
import type { BootTestOptions, BootVerdict, SessionOptions } from '../../config/contract.js';
import { EXIT_CODES } from '../../errors/exit-codes.js';
import { BootReport } from '../boot-report.js';
import {
  type Arguments,
  type CommandBody,
  type CommandContext,
  isGiven,
  textArgument,
} from '../context.js';
import { Interrupts } from '../interrupts.js';
import { prepareTarget } from '../session-flags.js';
import { withUrl } from './query.js';

const TIMEOUT_SECONDS_DEFAULT = 300;
const TIMEOUT_SECONDS_MAX = 86_400;
const MEMORY_MIB_DEFAULT = 1024;
const MEMORY_MIB_MIN = 16;
const MEMORY_MIB_MAX = 1 << 20;
/** What QEMU's machine takes without further settings. */
const CPUS_MAX = 255;
const CPU_MODEL = /^[A-Za-z0-9][\w.,=+-]{0,255}$/;

export const BOOT_TEST: CommandBody = { build: withBootTestFlags, run: runBootTestCommand };

function withBootTestFlags(parser: Argv): Argv {
  return withMachineFlags(
    withUrl(parser)
      .option('expect', {
        ...text,
        describe: `passed when a line of the serial console matches REGEX [${EXPECT_DEFAULT}]`,
      })
      .option('fail-regex', {
        ...text,
        describe:
          'failed when a line matches before [panics, rescue shells, firmware that gives up]',
      })
      .option('timeout', {
        ...text,
        describe: `seconds until the status is 33 [${TIMEOUT_SECONDS_DEFAULT}]`,
      })
      .option('console', { type: 'boolean', describe: 'show the console as it goes' })
      .option('write', {
        type: 'boolean',
        describe: 'boot the LUN itself: what the system writes stays on it',
      })
      .option('keep-overlay', {
        ...text,
        describe: 'keep what the system wrote, as a qcow2 file over the LUN',
        conflicts: 'write',
      })
      .option('screenshot', {
        ...text,
        describe: 'write what the screen shows at the end to a PNG file, or .ppm',
      }),
  );
}

const text = { type: 'string', requiresArg: true } as const;

function withMachineFlags(parser: Argv): Argv {
  return parser
    .option('firmware', { choices: ['bios', 'uefi'], default: 'bios', describe: 'what starts it' })
    .option('accel', {
      choices: ['auto', 'kvm', 'tcg'],
      default: 'auto',
      describe: 'run on the CPU (kvm) or emulate (tcg); auto: kvm if it is available',
    })
    .option('disk', {
      choices: ['virtio', 'scsi', 'sata'],
      default: 'virtio',
      describe: 'what the LUN is in the machine',
    })
    .option('network', {
      choices: ['none', 'user'],
      default: 'none',
      describe: "user: a network card behind this machine's addresses",
    })
    .option('memory', { ...text, describe: `in MiB, or 2G and so on [${MEMORY_MIB_DEFAULT}]` })
    .option('cpus', { ...text, describe: 'number of CPUs [1]' })
    .option('cpu', { ...text, describe: 'model of CPU, as QEMU names it [all that can be had]' });
}

/** `boot-test <url>`: whether the image on a LUN boots. */
async function runBootTestCommand(context: CommandContext, args: Arguments): Promise<number> {
  const wishes = readWishes(args, context.io.environment['PATH'] ?? '');
  const { url, options } = await prepareTarget(context, args, 'boot');
  if (wishes.write && options.readOnly) {
    throw new UsageError('--write and the option readOnly contradict each other: drop one.');
  }
  using interrupts = new Interrupts(context.io.signals);
  using report = new BootReport(context.io, {
    url,
    options: { ...options, ...wishes },
    json: isGiven(args, 'json'),
    console: isGiven(args, 'console'),
  });
  const verdict = await interrupts.orInterrupted(
    context.backend.bootTest(url, { ...options, ...wishes }, report.hooks(interrupts.signal)),
  );
  const status = statusOf(verdict);
  report.verdict(verdict, status);
  return status;
}

function statusOf(verdict: BootVerdict): number {
  if (verdict.passed) return EXIT_CODES.ok.code;
  return verdict.reason === 'timeout' ? EXIT_CODES.timedOut.code : EXIT_CODES.error.code;
}

type Wishes = Omit<BootTestOptions, keyof SessionOptions>;

function readWishes(args: Arguments, searchPath: string): Wishes {
  const cpuModel = textArgument(args, 'cpu');
  if (cpuModel !== undefined && !CPU_MODEL.test(cpuModel)) {
    throw new UsageError(
      `--cpu '${cpuModel}' is no model of QEMU: \`qemu-system-x86_64 -cpu help\` lists them.`,
    );
  }
  const screenshotPath = fileToWrite(args, 'screenshot');
  const keepOverlayPath = fileToWrite(args, 'keep-overlay');
  if (screenshotPath !== undefined && screenshotPath === keepOverlayPath) {
    throw new UsageError('--screenshot and --keep-overlay name the same file: give two.');
  }
  return {
    write: isGiven(args, 'write'),
    expect: compilePattern('--expect', textArgument(args, 'expect') ?? EXPECT_DEFAULT),
    fail: compilePattern('--fail-regex', textArgument(args, 'fail-regex') ?? FAIL_DEFAULT),
    timeoutSeconds: readTimeout(textArgument(args, 'timeout')),
    firmware: args['firmware'] === 'uefi' ? 'uefi' : 'bios',
    accelerator: choice(args['accel'], ['auto', 'kvm', 'tcg']),
    disk: choice(args['disk'], ['virtio', 'scsi', 'sata']),
    network: choice(args['network'], ['none', 'user']),
    memoryMiB: readMemory(textArgument(args, 'memory')),
    cpus: readCpus(textArgument(args, 'cpus')),
    ...(cpuModel === undefined ? {} : { cpuModel }),
    ...(screenshotPath === undefined ? {} : { screenshotPath }),
    ...(keepOverlayPath === undefined ? {} : { keepOverlayPath }),
    searchPath,
  };
}

/** The parser has refused what is not among `values`; the first is the default. */
function choice<T extends string>(value: unknown, values: readonly [T, ...T[]]): T {
  return values.find((known) => known === value) ?? values[0];
}

function readTimeout(given: string | undefined): number {
  if (given === undefined) return TIMEOUT_SECONDS_DEFAULT;
  const seconds = /^\d+(\.\d+)?$/.test(given) ? Number(given) : 0;
  if (seconds > 0 && seconds <= TIMEOUT_SECONDS_MAX) return seconds;
  throw new UsageError(
    `--timeout must be a number of seconds up to ${TIMEOUT_SECONDS_MAX}, not '${given}'.`,
  );
}

function readMemory(given: string | undefined): number {
  if (given === undefined) return MEMORY_MIB_DEFAULT;
  const [, digits, unit] = /^(\d{1,7})([MG]?)$/.exec(given) ?? [];
  const mib = Number(digits ?? 0) * (unit === 'G' ? 1024 : 1);
  if (mib >= MEMORY_MIB_MIN && mib <= MEMORY_MIB_MAX) return mib;
  throw new UsageError(
    `--memory must be a number of MiB from ${MEMORY_MIB_MIN} to ${MEMORY_MIB_MAX}, ` +
      `also as 512M or 2G, not '${given}'.`,
  );
}

function readCpus(given: string | undefined): number {
  if (given === undefined) return 1;
  const count = /^\d{1,3}$/.test(given) ? Number(given) : 0;
  if (count >= 1 && count <= CPUS_MAX) return count;
  throw new UsageError(`--cpus must be a number from 1 to ${CPUS_MAX}, not '${given}'.`);
}

/** A file of a flag, in a folder that can be written: known before minutes are spent. */
function fileToWrite(args: Arguments, name: string): string | undefined {
  const given = textArgument(args, name);
  if (given === undefined) return undefined;
  if (given === '') throw new UsageError(`--${name} is empty: give the file to write.`);
  const path = resolve(given);
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory()) {
    throw new UsageError(`--${name}: ${path} is a folder; give the file to write.`);
  }
  // Also a link to nothing: what it points to is not the user's word.
  if (lstatSync(path, { throwIfNoEntry: false }) !== undefined) {
    throw new UsageError(`--${name}: ${path} exists already; name a new file.`);
  }
  try {
    accessSync(dirname(path), constants.W_OK | constants.X_OK);
    return path;
  } catch (cause) {
    const code = codeOf(cause);
    throw new UsageError(`--${name}: nothing can be written in ${dirname(path)} (${code}).`, {
      cause,
      exitCode: (code === 'EACCES' ? EXIT_CODES.notPermitted : EXIT_CODES.invalidUse).code,
    });
  }
}
