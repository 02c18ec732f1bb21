// Preloaded into a process that is measured: at SIGUSR2 it collects its garbage and leaves what
// its memory is in the file that SCALE_REPORT names.
const { renameSync, writeFileSync } = require('node:fs');
const { setFlagsFromString } = require('node:v8');
const { runInNewContext } = require('node:vm');

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc');
const path = process.env['SCALE_REPORT'];
if (path === undefined) throw new Error('SCALE_REPORT names no file');

process.on('SIGUSR2', () => {
  collectGarbage();
  writeFileSync(`${path}.new`, JSON.stringify(process.memoryUsage()));
  renameSync(`${path}.new`, path);
});
