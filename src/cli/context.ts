import type { Argv } from 'yargs';
import type { Backend } from '../config/contract.js';
import type { ErrorPlace } from '../errors/error-report.js';

export type SignalName = 'SIGINT' | 'SIGTERM' | 'SIGHUP';

/** Where signals come from: the process, or a test. */
export interface SignalSource {
  on(name: SignalName, listener: () => void): unknown;
  off(name: SignalName, listener: () => void): unknown;
}

type Terminal = { readonly isTTY?: boolean; readonly rows?: number };

/** The world around a command. */
export type CliIo = {
  readonly stdin: NodeJS.ReadableStream & Terminal;
  readonly stdout: NodeJS.WritableStream & Terminal;
  readonly stderr: NodeJS.WritableStream & Terminal;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly signals: SignalSource;
};

/** What every command is given. */
export type CommandContext = {
  readonly io: CliIo;
  readonly backend: Backend;
  /** Filled as soon as it is known what the command is about, for the report of an error. */
  place: ErrorPlace;
};

/** Arguments as yargs gives them: flags by their name, positionals by theirs. */
export type Arguments = Readonly<Record<string, unknown>>;

/** What a command is made of: its flags, and what it does; `run` returns the exit status. */
export type CommandBody = {
  readonly build: (parser: Argv) => Argv;
  readonly run: (context: CommandContext, args: Arguments) => Promise<number>;
};

/** A flag or positional that is text; `undefined` when it is not given. */
export function textArgument(args: Arguments, name: string): string | undefined {
  const value = args[name];
  return typeof value === 'string' ? value : undefined;
}

/** A positional that yargs has demanded. */
export function requiredArgument(args: Arguments, name: string): string {
  return textArgument(args, name) ?? '';
}

export function isGiven(args: Arguments, name: string): boolean {
  return args[name] === true;
}

/** No colours if NO_COLOR has a value (no-color.org). */
export function allowsColor({ environment }: CliIo): boolean {
  return (environment['NO_COLOR'] ?? '') === '';
}
