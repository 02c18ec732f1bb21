import { readFileSync } from 'node:fs';
import type { Tgt } from '../helpers/tgt.js';

const README = readFileSync(new URL('../../README.md', import.meta.url), 'utf8');

/** The commands of a section of the README, for the target of a test as a virtual machine sees it. */
export function readmeSteps(title: string, tgt: Tgt): string {
  const section = README.split(/^## /m).find((text) => text.startsWith(`${title}\n`));
  const blocks = [...(section ?? '').matchAll(/^ *```sh\n(.*?)^ *```$/gms)];
  const steps = blocks.map(([, block]) => block).join('');
  return steps
    .replace('/by-path/ip-192.0.2.1:3260-', `/by-path/ip-10.0.2.2:${tgt.port}-`)
    .replace('login 192.0.2.1 ', `login 10.0.2.2:${tgt.port} `)
    .replace('iqn.2001-04.com.example:disk1', tgt.iqn);
}
