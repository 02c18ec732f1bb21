import { closestMatch } from '../base/closest-match.js';
import { UsageError } from '../base/errors.js';

/** Flags people try; a secret must not get into the list of processes. */
const SECRET_FLAGS = /^(?:target-)?(?:chap-)?(?:password|passwd|pass|secret)$/;

/** What was typed, and what could have been. */
type CommandLine = {
  readonly argv: readonly string[];
  /** `serve <url>` and so on, of every command. */
  readonly usages: readonly string[];
  /** Names of the flags of the command that was parsed. */
  readonly flags: readonly string[];
};

/** The parser's words for a wrong command line as an error that says what to type instead. */
export function wrongUse(message: string, line: CommandLine): UsageError {
  const name = line.argv.find((word) => !word.startsWith('-'));
  const usage = line.usages.find((known) => known.split(' ')[0] === name);
  if (name !== undefined && usage === undefined) return unknownCommand(name, line);
  const help = name === undefined ? 'iscsi-nbd --help' : `iscsi-nbd ${name} --help`;
  return new UsageError(`${wordsFor(message, line, usage)} See \`${help}\`.`);
}

function unknownCommand(name: string, line: CommandLine): UsageError {
  const names = line.usages.map((usage) => usage.split(' ')[0] ?? '');
  const near = closestMatch(name, names);
  const hint = near === undefined ? '' : ` Did you mean ${near}?`;
  return new UsageError(`There is no command '${name}'.${hint} \`iscsi-nbd --help\` lists them.`);
}

function wordsFor(message: string, line: CommandLine, usage = ''): string {
  const unknown = /^Unknown arguments?: (.*)$/s.exec(message)?.[1]?.split(', ');
  if (unknown !== undefined) return unknownArgument(unknown, line, usage);
  if (message.startsWith('Not enough non-option arguments')) {
    return `${usage.split(' ')[0]} needs ${usage.split(' ').slice(1).join(' ')}.`;
  }
  const alone = /^Not enough arguments following: (.*)$/.exec(message)?.[1];
  if (alone !== undefined) return `--${alone} needs a value.`;
  const pair = /^Arguments (\S+) and (\S+) are mutually exclusive/.exec(message);
  if (pair !== null) return `--${pair[1]} and --${pair[2]} exclude each other: give one of them.`;
  const choice = /Argument: (\S+), Given: (.*), Choices: (.*)/.exec(message);
  if (choice !== null) {
    const given = choice[2] === 'true' ? '' : `, not ${choice[2]}`;
    return `--${choice[1]} must be one of ${choice[3]}${given}.`;
  }
  return `${message.replace(/\.$/, '')}.`;
}

function unknownArgument(unknown: readonly string[], line: CommandLine, usage: string): string {
  const secret = unknown.find((name) => SECRET_FLAGS.test(name));
  if (secret !== undefined) {
    return (
      `There is no --${secret}: other users can see a command line. ` +
      'Use --chap-secret-file PATH, LIBISCSI_CHAP_PASSWORD, or a terminal to be asked.'
    );
  }
  const first = unknown[0] ?? '';
  const isFlag = line.argv.some((word) => word.startsWith('-') && word.includes(first));
  if (!isFlag) return `'${first}' is one word too many: the command is \`iscsi-nbd ${usage}\`.`;
  const near = closestMatch(first, line.flags);
  const dashes = first.length === 1 ? '-' : '--';
  return `There is no ${dashes}${first}.${near === undefined ? '' : ` Did you mean --${near}?`}`;
}
