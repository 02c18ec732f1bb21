#!/usr/bin/env node
// Draws the state machines in docs/ARCHITECTURE.md (as Mermaid text, between markers) from the
// tables that the code runs on. With --check nothing is written: the exit status says whether the
// page is current.
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const ROOT = new URL('../../', import.meta.url);
const PAGE = new URL('docs/ARCHITECTURE.md', ROOT);

/**
 * Each table: its file, what it exports, and the name of the markers.
 * @type {readonly { readonly path: string, readonly table: string, readonly name: string }[]}
 */
const TABLES = [
  { path: 'src/lun/lun-state.ts', table: 'LUN_MOVES', name: 'lun states' },
  { path: 'src/volume/volume-phase.ts', table: 'VOLUME_MOVES', name: 'volume phases' },
  { path: 'src/bridge/paths/path-state.ts', table: 'PATH_MOVES', name: 'path states' },
  { path: 'src/supervisor/session-phase.ts', table: 'PHASE_MOVES', name: 'session phases' },
  { path: 'src/iscsi/session/session-state.ts', table: 'SESSION_MOVES', name: 'session states' },
  {
    path: 'src/iscsi/connection/connection-state.ts',
    table: 'CONNECTION_MOVES',
    name: 'connection states',
  },
];

/**
 * @typedef {Readonly<Record<string, Readonly<Record<string, string>>>>} Moves
 * @param {string} path
 * @param {string} table
 * @returns {Promise<Moves>}
 */
async function movesOf(path, table) {
  const { outputFiles } = await build({
    entryPoints: [fileURLToPath(new URL(path, ROOT))],
    bundle: true,
    write: false,
    format: 'esm',
    platform: 'node',
    logLevel: 'error',
  });
  const code = Buffer.from(outputFiles[0]?.contents ?? []).toString('base64');
  const module = await import(`data:text/javascript;base64,${code}`);
  return module[table];
}

/**
 * One arrow for each pair of states, with all the events that lead from one to the other. Events
 * that change nothing are left out.
 * @param {Moves} moves
 */
function diagram(moves) {
  const plain = (/** @type {string} */ name) => name.replace(/-/g, '_');
  const lines = [];
  const [first = ''] = Object.keys(moves);
  lines.push(`  [*] --> ${plain(first)}`);
  for (const [from, row] of Object.entries(moves)) {
    for (const to of new Set(Object.values(row))) {
      if (to === from) continue;
      const events = Object.keys(row).filter((event) => row[event] === to);
      lines.push(`  ${plain(from)} --> ${plain(to)}: ${events.join(', ')}`);
    }
  }
  return ['```mermaid', 'stateDiagram-v2', ...lines, '```', ''].join('\n');
}

const before = readFileSync(PAGE, 'utf8');
let page = before;
for (const { path, table, name } of TABLES) {
  const [begin, end] = [`<!-- begin ${name} -->`, `<!-- end ${name} -->`];
  const [head, rest] = page.split(begin);
  const tail = rest?.split(end)[1];
  if (tail === undefined) throw new Error(`docs/ARCHITECTURE.md has no place for ${name}`);
  page = `${head}${begin}\n${diagram(await movesOf(path, table))}${end}${tail}`;
}
if (!process.argv.includes('--check')) writeFileSync(PAGE, page);
else if (page !== before) {
  process.stderr.write('docs/ARCHITECTURE.md: run scripts/state-diagrams/make.mjs\n');
  process.exitCode = 1;
}
