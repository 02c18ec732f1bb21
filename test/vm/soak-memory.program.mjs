// Preloaded into a daemon of the soak (NODE_OPTIONS): keeps its memory, as Node counts it, in a file.
import { writeFileSync } from 'node:fs';

const folder = process.env['SOAK_MEMORY'];
const keep = () => writeFileSync(`${folder}/${process.pid}`, JSON.stringify(process.memoryUsage()));
if (folder !== undefined) setInterval(keep, 1000).unref();
