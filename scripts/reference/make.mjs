#!/usr/bin/env node
// Makes the reference pages from the tables that the code runs on: docs/CONFIGURATION.md from the
// options, docs/CONTROL-API.md from the methods of the control socket, and
// docs/EVENTS-AND-METRICS.md from the schema of events and the registry of metrics. The words are in
// method-texts.mjs, event-texts.mjs and field-texts.mjs: an option, method, parameter, field, event
// or metric without words is an error. With --check nothing is written: the exit status says whether
// the pages are current.
import { readFileSync, writeFileSync } from 'node:fs';
import { configurationPage } from './configuration-page.mjs';
import { controlPage } from './control-page.mjs';
import { eventsPage } from './events-page.mjs';
import { loadTables } from './tables.mjs';

const ROOT = new URL('../../', import.meta.url);
const tables = await loadTables();

/** @type {readonly [path: string, text: string][]} */
const pages = [
  ['docs/CONFIGURATION.md', configurationPage(tables)],
  ['docs/CONTROL-API.md', controlPage(tables)],
  ['docs/EVENTS-AND-METRICS.md', eventsPage(tables)],
];

for (const [path, text] of pages) {
  if (!process.argv.includes('--check')) {
    writeFileSync(new URL(path, ROOT), text);
  } else if (textOf(path) !== text) {
    console.error(`${path} is not current: run scripts/reference/make.mjs`);
    process.exitCode = 1;
  }
}

/** @param {string} path */
function textOf(path) {
  try {
    return readFileSync(new URL(path, ROOT), 'utf8');
  } catch {
    return '';
  }
}
