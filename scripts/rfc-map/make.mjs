#!/usr/bin/env node
// Makes docs/rfc7143-map.md from titles of tests and citations in src/iscsi: for each section
// of RFC 7143 the rules that are tested, which test shows each, and where the code cites it.
// With --check nothing is written: the exit status says whether the file is current.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import ts from 'typescript';

const ROOT = new URL('../../', import.meta.url);
const OUTPUT = 'docs/rfc7143-map.md';
/** @typedef {{ path: string, text: string }} SourceFile */
/** @typedef {{ section: string, title: string, path: string }} TestedRule */

/** @type {Readonly<Record<string, string | undefined>>} */
const TITLES = JSON.parse(read('test/rfc7143-sections.json'));

/**
 * What an initiator has to do, in short, with the sections whose tests show it.
 * @type {readonly [duty: string, sections: readonly string[]][]}
 */
const DUTIES = [
  ['CmdSN, the command window, ExpCmdSN and MaxCmdSN as serial numbers', ['4.2.2.1']],
  ['StatSN and ExpStatSN, gaps and duplicates', ['4.2.2.2', '7.9']],
  ['Tags and LUNs that fit their task', ['4.2.5.3']],
  ['Unsolicited and immediate data', ['4.2.5.2', '13.14', '13.12', '11.7.7']],
  ['R2T: bounds, tags, order, several at once', ['11.8', '11.7.5', '13.17', '13.19']],
  ['Data-In in any legal cut, status in it, the A bit', ['11.7', '11.7.2', '11.7.3']],
  ['Residuals, responses, sense', ['11.4', '11.4.1', '11.4.3', '11.4.5', '11.4.7.2', '11.4.8']],
  ['The login phase, its stages and bits', ['6.3', '11.13', '11.13.6', '11.13.7']],
  ['Text, the C bit, negotiation of every key', ['6.1', '6.2', '6.2.1', '6.2.2', '13', '13.25']],
  ['Portal group tag', ['13.9']],
  ['Redirection, refusals, every status', ['11.13.5', '13.8']],
  ['SendTargets and discovery sessions', ['11.10', '11.10.4', '11.11', '13.21', 'C']],
  ['CHAP', ['9.2', '9.2.1', '12.1', '12.1.3', 'B']],
  ['NOP-Out, NOP-In and signs of life', ['11.18', '11.18.3']],
  ['Asynchronous messages', ['11.9.1', '11.9.4.1']],
  ['Reject', ['11.17', '11.17.1', '11.17.4', '7.3']],
  ['Format errors', ['7.7']],
  ['Digests, padding, additional headers', ['11.2', '11.2.3', '11.2.4', '7.8', '13.1']],
  ['Session reinstatement', ['6.3.5']],
  ['Time2Wait', ['7.5.1', '11.15.3']],
  ['Task management and its escalation', ['11.5', '11.6.1', '7.11']],
  ['Logout', ['11.15', '11.15.1']],
  ['Names', ['4.2.7.2', '4.2.7.3']],
];

const map = makeMap();
if (process.argv.includes('--check')) {
  const isCurrent = read(OUTPUT) === map;
  if (!isCurrent) console.error(`${OUTPUT} is not current: run scripts/rfc-map/make.mjs`);
  process.exitCode = isCurrent ? 0 : 1;
} else {
  writeFileSync(new URL(OUTPUT, ROOT), map);
}

function makeMap() {
  // The initiator's own; the embedded target has rules and tests of its own.
  const tests = [
    ...sourceFiles('test/iscsi', /\.test\.ts$/),
    ...sourceFiles('test/integration', /^(tgt-protocol|istgt)\.test\.ts$/),
  ];
  const rules = tests.flatMap(rulesOf);
  const places = placesOf(sourceFiles('src/iscsi', /\.ts$/));
  const sections = [...new Set([...rules.map((rule) => rule.section), ...places.keys()])];
  const lines = [
    '# RFC 7143, rule by rule',
    '',
    'Made by `scripts/rfc-map/make.mjs` from the titles of the tests and the citations in',
    '`src/iscsi/`; a test holds it current. A rule is what its test is called.',
    '',
    '## What an initiator has to do',
    '',
    '| duty | sections | rules tested |',
    '|---|---|---|',
    ...DUTIES.map(([duty, among]) => dutyLine(duty, among, rules)),
    '',
    '## By section',
  ];
  for (const section of sections.sort(bySection)) {
    const tested = rules.filter((rule) => rule.section === section);
    const where = [...(places.get(section) ?? [])].map((path) => `\`${path}\``);
    lines.push('', `### ${nameOf(section)} ${TITLES[section]}`, '');
    if (where.length > 0) lines.push(`Cited in ${where.join(', ')}.`);
    if (where.length > 0 && tested.length > 0) lines.push('');
    for (const { title, path } of tested) lines.push(`- ${title} (\`${path}\`)`);
  }
  return `${lines.join('\n')}\n`;
}

/** @param {string} section */
function nameOf(section) {
  return /^[A-E]/.test(section) ? `Appendix ${section}` : `§${section}`;
}

/**
 * @param {string} duty
 * @param {readonly string[]} among
 * @param {readonly TestedRule[]} rules
 */
function dutyLine(duty, among, rules) {
  const count = rules.filter((rule) => among.includes(rule.section)).length;
  const untested = among.filter((section) => !rules.some((rule) => rule.section === section));
  if (untested.length > 0)
    throw new Error(`${duty}: no test names ${untested.map(nameOf).join(', ')}`);
  return `| ${duty} | ${among.map(nameOf).join(', ')} | ${count} |`;
}

/**
 * Titles of `it` and `test` with the sections that they, or the `describe`s around them, name.
 * @param {SourceFile} file
 * @returns {TestedRule[]}
 */
function rulesOf({ path, text }) {
  const source = ts.createSourceFile(path, text, ts.ScriptTarget.ES2022, true);
  /** @type {TestedRule[]} */
  const rules = [];
  visit(source, []);
  return rules;

  /**
   * @param {ts.Node} node
   * @param {readonly string[]} around titles of the `describe`s, from the outermost
   */
  function visit(node, around) {
    const call = titledCall(node);
    if (call === null) {
      ts.forEachChild(node, (child) => visit(child, around));
      return;
    }
    if (call.name === 'describe') {
      ts.forEachChild(node, (child) => visit(child, [...around, call.title]));
      return;
    }
    const cited = around.some((title) => title.includes('RFC 7143'));
    const own = sectionsOf(call.title, cited || call.title.includes('RFC 7143'));
    const outer = around.flatMap((title) => sectionsOf(title, title.includes('RFC 7143')));
    // A rule of a subsection stands there; the section around it is only where the test lives.
    const sections = own.length > 0 ? own : outer;
    const context = own.length > 0 ? '' : contextOf(around.at(-1) ?? '');
    for (const section of new Set(sections)) {
      rules.push({ section, title: `${context}${withoutCitation(call.title)}`, path });
    }
  }
}

/**
 * `it('title', …)`, `test.each(…)('title', …)`, `describe.concurrent('title', …)`; null for others.
 * @param {ts.Node} node
 */
function titledCall(node) {
  if (!ts.isCallExpression(node)) return null;
  const [first] = node.arguments;
  if (first === undefined || !ts.isStringLiteralLike(first)) return null;
  let callee = node.expression;
  while (ts.isCallExpression(callee) || ts.isPropertyAccessExpression(callee)) {
    callee = callee.expression;
  }
  const name = ts.isIdentifier(callee) ? callee.text : '';
  if (!['describe', 'it', 'test'].includes(name)) return null;
  return { name: name === 'describe' ? 'describe' : 'it', title: first.text };
}

/**
 * @param {string} title
 * @param {boolean} isCited
 */
function sectionsOf(title, isCited) {
  if (!isCited) return [];
  const numbers = [...title.matchAll(/§(\d+(?:\.\d+)*)/g)].map(([, number = '']) => number);
  const appendices = [...title.matchAll(/Appendix ([A-E])\b/g)].map(([, letter = '']) => letter);
  return [...numbers, ...appendices].filter((section) => TITLES[section] !== undefined);
}

/**
 * What a `describe` says beyond its citation, as in "…: unsolicited data".
 * @param {string} title
 */
function contextOf(title) {
  const rest = withoutCitation(title);
  return rest === '' ? '' : `${rest}: `;
}

/** @param {string} title */
function withoutCitation(title) {
  let rest = title.replace(/RFC 7143 /g, '');
  for (const match of title.matchAll(/(?:§(\d+(?:\.\d+)*)|Appendix ([A-E])\b)/g)) {
    const named = TITLES[match[1] ?? match[2] ?? ''];
    if (named !== undefined) rest = rest.replace(`${match[0]} (${named})`, '');
    rest = rest.replace(new RegExp(`^${match[0].replaceAll('.', '\\.')}(?: and)?[:,]? ?`), '');
  }
  return rest
    .replace(/\s*\(\s*\)/g, '')
    .replace(/^\s*[:,]\s*/, '')
    .replace(/\s+/g, ' ')
    .trim();
}

/**
 * Sections with the files of `src/` that cite them, in comments or as rows of the table of quirks.
 * @param {readonly SourceFile[]} files
 */
function placesOf(files) {
  /** @type {Map<string, Set<string>>} */
  const places = new Map();
  for (const { path, text } of files) {
    const cited = [...text.matchAll(/RFC 7143 (?:§(\d+(?:\.\d+)*)|Appendix ([A-E]))/g)];
    const rows = [...text.matchAll(/\b(?:strict|tolerate|wait|fallback)\(\s*'(\d+(?:\.\d+)*)'/g)];
    for (const match of [...cited, ...rows]) {
      const section = match[1] ?? match[2] ?? '';
      if (TITLES[section] === undefined) continue;
      places.set(section, (places.get(section) ?? new Set()).add(path));
    }
  }
  return places;
}

/**
 * @param {string} left
 * @param {string} right
 */
function bySection(left, right) {
  /** @param {string} section */
  const parts = (section) =>
    section.split('.').map((part) => (/\d/.test(part) ? Number(part) : 1000 + part.charCodeAt(0)));
  const [one, two] = [parts(left), parts(right)];
  for (let index = 0; index < Math.max(one.length, two.length); index += 1) {
    const difference = (one[index] ?? -1) - (two[index] ?? -1);
    if (difference !== 0) return difference;
  }
  return 0;
}

/**
 * @param {string} folder
 * @param {RegExp} ending
 * @returns {SourceFile[]}
 */
function sourceFiles(folder, ending) {
  return readdirSync(new URL(folder, ROOT), { recursive: true, encoding: 'utf8' })
    .filter((name) => ending.test(name))
    .sort()
    .map((name) => ({ path: `${folder}/${name}`, text: read(`${folder}/${name}`) }));
}

/**
 * Empty if there is no such file.
 * @param {string} path
 */
function read(path) {
  try {
    return readFileSync(new URL(path, ROOT), 'utf8');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return '';
    throw error;
  }
}
