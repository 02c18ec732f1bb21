import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline/promises';
import { Writable } from 'node:stream';
import { inspect } from 'node:util';
import { codeOf, UsageError } from '../base/errors.js';
import { EXIT_CODES } from '../errors/exit-codes.js';
import type { Config } from './config.js';
import type { ChapCredentials } from './contract.js';

/** A CHAP secret is at most a few hundred bytes; a larger file is another one by mistake. */
const SECRET_BYTES_MAX = 1024;
/** Names of the systemd credentials (`LoadCredential=chap-secret:…`) we look for. */
const CREDENTIAL = 'chap-secret';
const TARGET_CREDENTIAL = 'target-chap-secret';

const HIDDEN = '[secret]';

/** A secret that does not show itself: every way of printing it gives `[secret]`. */
export class Secret {
  readonly #text: string;

  constructor(text: string) {
    this.#text = text;
  }

  /** The secret itself, for the one place that computes with it. */
  reveal(): string {
    return this.#text;
  }

  toString(): string {
    return HIDDEN;
  }

  toJSON(): string {
    return HIDDEN;
  }

  [inspect.custom](): string {
    return HIDDEN;
  }
}

/**
 * Reads a secret from a file that only its owner (we, or root) can read. One trailing newline is
 * not part of it. The file is opened once and checked and read through the same descriptor, so
 * nothing can be put in its place in between. Throws UsageError.
 */
export function readSecretFile(path: string, options?: { readonly systemd: boolean }): Secret {
  const descriptor = openSecret(path);
  try {
    const facts = fstatSync(descriptor);
    if (!facts.isFile()) throw refused(path, 'it is not a regular file');
    // systemd keeps credentials in a directory of their own and may grant access by an ACL,
    // which shows as group bits.
    if (!options?.systemd) {
      if (facts.uid !== 0 && facts.uid !== process.getuid?.()) {
        throw refused(path, `it belongs to another user (uid ${facts.uid})`);
      }
      if ((facts.mode & 0o077) !== 0) {
        const mode = (facts.mode & 0o777).toString(8).padStart(4, '0');
        throw refused(path, `others can get at it (mode ${mode}); run: chmod 600 ${path}`);
      }
    }
    const bytes = Buffer.alloc(SECRET_BYTES_MAX + 1);
    const length = readSync(descriptor, bytes, 0, bytes.length, 0);
    if (length > SECRET_BYTES_MAX) throw refused(path, `it has over ${SECRET_BYTES_MAX} bytes`);
    const text = bytes.toString('utf8', 0, length).replace(/\r?\n$/, '');
    bytes.fill(0);
    if (text === '') throw refused(path, 'it is empty');
    return new Secret(text);
  } finally {
    closeSync(descriptor);
  }
}

export type SecretInputs = {
  readonly config: Config;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** User and password of the target URL; they win over everything else. */
  readonly url: { readonly user?: string; readonly password?: string };
  /** Asks a person; absent without a terminal. */
  readonly prompt?: (question: string) => Promise<Secret>;
};

/**
 * The credentials of a session, or `undefined` for none. A secret is searched in the URL,
 * `chapSecretFile`, `LIBISCSI_CHAP_PASSWORD`, systemd's credentials, and asked for last.
 * Throws UsageError when a user has no secret, or a secret no user.
 */
export async function resolveChap(inputs: SecretInputs): Promise<ChapCredentials | undefined> {
  const { values } = inputs.config;
  const user = inputs.url.user ?? values.chapUser;
  if (user === undefined) {
    if (values.targetChapUser !== undefined || values.targetChapSecretFile !== undefined) {
      // RFC 7143 §12.1.3 (Challenge Handshake Authentication Protocol (CHAP)): the target
      // proves itself in answer to our own response.
      throw new UsageError('A target can prove itself only to a user: add --chap-user.');
    }
    if (values.chapSecretFile === undefined) return undefined;
    throw new UsageError('There is a CHAP secret file but no user: add --chap-user.');
  }
  const ours = { file: 'chapSecretFile', variable: 'LIBISCSI_CHAP_PASSWORD' } as const;
  const secret =
    inputs.url.password ??
    findSecret(inputs, { ...ours, credential: CREDENTIAL })?.reveal() ??
    (await inputs.prompt?.(`CHAP secret of ${user}: `))?.reveal();
  if (secret === undefined) {
    throw new UsageError(
      `There is no secret for the CHAP user ${user}. Give it with --chap-secret-file PATH, ` +
        `in LIBISCSI_CHAP_PASSWORD, or as the systemd credential ${CREDENTIAL}.`,
    );
  }
  const target = resolveTargetChap(inputs);
  return target === undefined ? { user, secret } : { user, secret, target };
}

function resolveTargetChap(inputs: SecretInputs): ChapCredentials['target'] {
  const user = inputs.config.values.targetChapUser;
  const secret = findSecret(inputs, {
    file: 'targetChapSecretFile',
    variable: 'LIBISCSI_CHAP_TARGET_PASSWORD',
    credential: TARGET_CREDENTIAL,
  })?.reveal();
  if (secret === undefined) {
    if (user === undefined) return undefined;
    throw new UsageError(
      `There is no secret for the target's CHAP user ${user}. Give it with ` +
        '--target-chap-secret-file PATH or in LIBISCSI_CHAP_TARGET_PASSWORD.',
    );
  }
  return user === undefined ? { secret } : { user, secret };
}

type SecretPlaces = {
  readonly file: 'chapSecretFile' | 'targetChapSecretFile';
  readonly variable: string;
  readonly credential: string;
};

function findSecret(inputs: SecretInputs, places: SecretPlaces): Secret | undefined {
  const path = inputs.config.values[places.file];
  const fromVariable = inputs.environment[places.variable];
  // The environment stands between flags and the configuration file, here as everywhere.
  const variableFirst = inputs.config.sources[places.file] === 'file';
  if (fromVariable && (path === undefined || variableFirst)) return new Secret(fromVariable);
  if (path !== undefined) return readSecretFile(path);
  const directory = inputs.environment['CREDENTIALS_DIRECTORY'];
  if (!directory) return undefined;
  return readCredential(join(directory, places.credential));
}

function readCredential(path: string): Secret | undefined {
  try {
    return readSecretFile(path, { systemd: true });
  } catch (error) {
    if (error instanceof UsageError && error.code === 'ERR_NO_SECRET_FILE') return undefined;
    throw error;
  }
}

/** Asks on `output` and reads a line from the terminal `input` without showing it. */
export async function promptForSecret(
  question: string,
  terminal: { readonly input: NodeJS.ReadableStream; readonly output: NodeJS.WritableStream },
): Promise<Secret> {
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() });
  const lines = createInterface({ input: terminal.input, output: nowhere, terminal: true });
  terminal.output.write(question);
  try {
    const text = await new Promise<string>((resolve, reject) => {
      lines.once('SIGINT', () => reject(abandoned('interrupted', EXIT_CODES.interrupted.code)));
      lines.once('close', () => reject(abandoned('no secret was given')));
      lines.once('line', resolve);
    });
    if (text === '') throw abandoned('the secret is empty');
    return new Secret(text);
  } finally {
    lines.close();
    terminal.output.write('\n');
  }
}

function abandoned(why: string, exitCode?: number): UsageError {
  const message = `The secret was asked for, but ${why}.`;
  return new UsageError(message, exitCode === undefined ? {} : { exitCode });
}

function openSecret(path: string): number {
  try {
    // O_NONBLOCK: opening a FIFO must not wait for its writer.
    return openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (cause) {
    const errno = codeOf(cause) || 'unknown';
    throw new UsageError(
      `The secret file ${path} cannot be opened (${errno}).${hidden(path, errno)}`,
      {
        cause,
        code: errno === 'ENOENT' ? 'ERR_NO_SECRET_FILE' : 'ERR_USAGE',
        exitCode: (errno === 'EACCES' ? EXIT_CODES.notPermitted : EXIT_CODES.invalidUse).code,
      },
    );
  }
}

/** What ProtectHome=yes of the service hides (systemd.exec(5)). */
function hidden(path: string, errno: string): string {
  if (errno !== 'EACCES' || !/^\/(?:root|home|run\/user)\//.test(path)) return '';
  return (
    ' The service sees no home directories: move the file to /etc/iscsi-nbd, or set ' +
    'ProtectHome=read-only in a drop-in (systemctl edit iscsi-nbd).'
  );
}

function refused(path: string, why: string): UsageError {
  return new UsageError(`The secret file ${path} is not used: ${why}.`);
}
