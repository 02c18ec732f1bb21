import type { DemoHooks, ProductEvent } from '../config/contract.js';

type DemoStep = 'target' | 'session' | 'disk' | 'write' | 'read' | 'outage' | 'end' | 'result';

/** Tells what the demo does as it does it: aligned lines for people, an object each with `json`. */
export class DemoReport {
  readonly #hooks: DemoHooks;
  readonly #startedAtMs = performance.now();
  #lastStep: DemoStep | null = null;

  constructor(hooks: DemoHooks) {
    this.#hooks = hooks;
  }

  get elapsedMs(): number {
    return performance.now() - this.#startedAtMs;
  }

  /** `text` is for people, `facts` are the same for programs. */
  tell(step: DemoStep, text: string, facts: Readonly<Record<string, unknown>> = {}): void {
    const elapsedMs = Math.round(this.elapsedMs);
    if (this.#hooks.json) {
      const time = new Date().toISOString();
      this.#hooks.log(JSON.stringify({ event: 'demo', time, step, elapsedMs, ...facts }));
      return;
    }
    this.#line(step, text, elapsedMs);
  }

  /** What `event` tells programs, in words. */
  tellPeople(step: DemoStep, text: string): void {
    if (!this.#hooks.json) this.#line(step, text, this.elapsedMs);
  }

  /** An event of the session; a step reports it to people. */
  event(event: ProductEvent): void {
    if (this.#hooks.json) this.#hooks.log(JSON.stringify(event));
  }

  #line(step: DemoStep, text: string, elapsedMs: number): void {
    const heading = step === this.#lastStep ? '' : step;
    this.#lastStep = step;
    const seconds = (elapsedMs / 1000).toFixed(2).padStart(5);
    this.#hooks.log(`${seconds} s  ${heading.padEnd(7)}  ${text}`);
  }
}
