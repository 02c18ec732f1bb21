import ts from 'typescript';
import type { SourceFile } from './tidy-rules.js';

/**
 * Phrases that are hard to understand, with a better way to say it and a sentence that has the
 * phrase. docs/GLOSSARY.md decides which term is used for which thing.
 */
export const PHRASES: readonly {
  readonly phrase: RegExp;
  readonly better: string;
  readonly example: string;
}[] = [
  row(/\bnobody\b/, 'no process, no client, or a passive sentence', 'It is what nobody knows.'),
  row(/\b(?:some|any)body(?: else)?\b/, 'name it: an operator, a process', 'Somebody else writes.'),
  row(/\bwhoever\b/, 'if a client …', 'Whoever comes first has it.'),
  row(
    /(?:^|[.;:] )who (?!is trusted)\w+/,
    'if a process …',
    'It is bound. Who finds it so is refused.',
  ),
  row(/\bof late\b/, 'recently, over the last N seconds', 'Its latency of late is high.'),
  row(/\balso (?:where|if|when)\b/, 'even if', 'It is found, also where LIO is silent.'),
  row(/\b(?:is|are|was|were|be|been) told\b/, 'reported', 'An attention is told once.'),
  row(/\btells? of\b/, 'reports', 'The target tells of no group.'),
  row(/\btakes?(?: \w+){1,3} away\b|\btaken away\b/, 'removes', 'It takes the device away.'),
  row(
    /\b(?:when|if) [^.;:]{1,40}(?:is|are|was) over\b/,
    'when … ends',
    'When it is over, it ends.',
  ),
  row(/\b(?:is|are) there(?:[.,;:]| again| already| when| and\b)/, 'exists', 'The disk is there.'),
  row(/\bpatience\b/, 'retries, deadline', 'Its patience ended.'),
  row(/\bwished? for\b/, 'requested', 'It is as it was wished for.'),
  row(/\bleaves? (?:[^.;:|]{1,25} )?away\b|\bleft away\b/, 'omit', 'The option leaves these away.'),
  row(/\blets? us in\b|\bare let in\b/, 'accepts the login', 'A target that lets us in.'),
  row(/\bghosts?\b/, 'a stale task or write', 'It is overtaken by its own ghost.'),
  row(/\bis no (?:error|failure)\b/, 'is not an error', 'A disk that refuses it is no error.'),
  row(
    /\b(?:requests?|reads?|writes?|they|sessions?|attempts|it) go(?:es)? on\b/,
    'continue',
    'Requests go on.',
  ),
  row(/\b(?:is|are) asked (?:for|at|by|each)\b/, 'requested, polled', 'The size is asked for.'),
  row(/\b(?:is|are|was) looked (?:for|at)\b/, 'polled, probed', 'Answers are looked for.'),
  row(/\blooks? for answers\b/, 'busy-poll', 'It looks for answers before it sleeps.'),
  row(/\bfought over\b|\bminds? both\b/, 'name the action', 'The lock is fought over.'),
  row(
    /\bgoes before it\b|\bpasses the \w+ over\b/,
    'takes precedence, disables',
    'The flag goes before it.',
  ),
  row(
    /\b(?:what|who) (?:waits|comes|nobody|was held|is held|else|uses it)\b/,
    'a noun',
    'Then what waits fails.',
  ),
  row(
    /\bhalf as fast again\b|\b(?:an?|two|four) (?:eighth|fifths?|tenth) (?:slower|faster)\b/,
    'a percentage',
    'It is an eighth slower.',
  ),
  row(
    /\bis seen to have\b|\bthe time of one command\b/,
    'is detected',
    'It is seen to have grown.',
  ),
  row(/\bnews and not\b|\bmended\b|\bcomes? up by themselves\b/, 'plain words', 'It was mended.'),
  row(/\bin small letters\b/, 'in lower case', 'It is sent in small letters.'),
  row(/\bstood still\b/, 'was suspended', 'The process stood still.'),
  row(/\b(?:to be had|be had here)\b/, 'available', 'KVM is not to be had.'),
  row(/\bis no (?:list|number|socket|name|URL|block|unix)\b/, 'is not a …', 'It is no number.'),
  row(/\bknown again\b|\bknow it again\b/, 'identified', 'A disk is known again by its name.'),
  row(
    /\bwhere (?:it can|there (?:is|are)|it is (?:an?|one))\b/,
    'if',
    'It is used where there is one.',
  ),
  row(/\bthen all is well\b|\blie beside\b|\bwhat is meant\b/, 'plain words', 'Then all is well.'),
];

function row(phrase: RegExp, better: string, example: string) {
  return { phrase: new RegExp(phrase.source, 'gi'), better, example };
}

/** Phrases of the list in a page; code is left out. A phrase may run over the end of a line. */
export function pageLanguage({ path, text }: SourceFile): string[] {
  return phrasesIn(withoutCode(text)).map((found) => `${path}: ${found}`);
}

/** The same in the texts of a program: strings of more than one word, no comments. */
export function textLanguage(file: SourceFile): string[] {
  const source = ts.createSourceFile(file.path, file.text, ts.ScriptTarget.ES2022, true);
  const found: string[] = [];
  const step = (node: ts.Node): void => {
    const isPart = ts.isTemplateHead(node) || ts.isTemplateMiddleOrTemplateTail(node);
    if ((ts.isStringLiteralLike(node) || isPart) && node.text.includes(' ')) {
      const { line } = source.getLineAndCharacterOfPosition(node.getStart());
      found.push(...phrasesIn(node.text).map((one) => `${file.path}:${line + 1}: ${one}`));
    }
    ts.forEachChild(node, step);
  };
  step(source);
  return found;
}

/** The same in the titles of tests. */
export function titleLanguage(file: SourceFile): string[] {
  const source = ts.createSourceFile(file.path, file.text, ts.ScriptTarget.ES2022, true);
  const found: string[] = [];
  const step = (node: ts.Node): void => {
    const title = ts.isCallExpression(node) ? node.arguments[0] : undefined;
    if (title !== undefined && ts.isStringLiteralLike(title) && isTest(node as ts.CallExpression)) {
      found.push(...phrasesIn(title.text).map((one) => `${file.path}: ${one}`));
    }
    ts.forEachChild(node, step);
  };
  step(source);
  return found;
}

function isTest({ expression }: ts.CallExpression): boolean {
  return /^(?:it|describe|test)\b/.test(expression.getText());
}

/** The same in comments of TypeScript, JavaScript and C++. A block of `//` lines is one comment. */
export function commentLanguage({ path, text }: SourceFile): string[] {
  const found = text.matchAll(COMMENT);
  return [...found].flatMap(({ 0: comment, index }) => {
    const words = comment.replace(/^[ \t]*(?:\/\/|\/?\*+\/?)/gm, ' ').replace(/`[^`\n]*`/g, '`');
    const line = text.slice(0, index).split('\n').length;
    return phrasesIn(words).map((one) => `${path}:${line}: ${one}`);
  });
}

/** `//` inside of a string is taken for a comment if a space is before it, which no string has. */
const COMMENT = /\/\*\*?\s[\s\S]*?\*\/|(?:(?<=^|[ \t])\/\/ .*\n?[ \t]*)+/gm;

function phrasesIn(text: string): string[] {
  const flat = text.replace(/\s+/g, ' ');
  return PHRASES.flatMap(({ phrase, better }) =>
    [...flat.matchAll(phrase)].map(({ 0: found, index }) => {
      const around = flat.slice(Math.max(0, index - 30), index + found.length + 20);
      return `"${found.trim()}" (better: ${better}) in "${around}"`;
    }),
  );
}

function withoutCode(text: string): string {
  return text
    .replace(/^```.*?^```/gms, '')
    .replace(/^\.(?:TH|EX|EE|I|IR|BR|RI)\b.*$/gm, '')
    .replaceAll('\\-', '-')
    .replace(/`[^`\n]*`/g, '`')
    .replace(/<!--.*?-->/gs, '');
}
