import { type ChildProcess, spawn } from 'node:child_process';
import { constants } from 'node:os';
import { UsageError } from '../base/errors.js';
import { EXIT_CODES } from '../errors/exit-codes.js';
import type { SignalName } from './context.js';

/** A signal's number on top of this is the exit status shells give for it. */
const STATUS_OF_SIGNALS = 128;

/** Our own secrets, which a command that is handed a disk has no use for. */
const SECRET_VARIABLES = ['LIBISCSI_CHAP_PASSWORD', 'LIBISCSI_CHAP_TARGET_PASSWORD'] as const;

/** The command of `--run`: a shell that has the terminal, and variables that name the export. */
export class RunCommand {
  readonly #child: ChildProcess;
  /** The command's status as a shell gives it. Rejects when it cannot be started. */
  readonly finished: Promise<number>;

  constructor(command: string, environment: Readonly<Record<string, string | undefined>>) {
    const env = { ...environment };
    for (const name of SECRET_VARIABLES) delete env[name];
    this.#child = spawn('sh', ['-c', command], { stdio: 'inherit', env });
    this.finished = new Promise((resolve, reject) => {
      this.#child.once('error', (cause) => {
        const { code: exitCode } = EXIT_CODES.error;
        reject(
          new UsageError(`--run: sh cannot be started: ${cause.message}.`, { cause, exitCode }),
        );
      });
      this.#child.once('exit', (status, signal) => {
        const number = signal === null ? 0 : constants.signals[signal];
        resolve(status ?? STATUS_OF_SIGNALS + number);
      });
    });
  }

  kill(signal: SignalName | 'SIGKILL'): void {
    this.#child.kill(signal);
  }
}
