/** Counts the bytes that the JavaScript of this thread copies, until `restore`. */
export class CopySpy {
  bytes = 0;
  #originals = [];

  constructor() {
    const typedArray = Object.getPrototypeOf(Uint8Array.prototype);
    this.#watch(typedArray, 'set', ([source]) => source.length);
    this.#watch(typedArray, 'slice', (_args, result) => result.byteLength);
    this.#watch(Buffer.prototype, 'copy', (_args, result) => result);
    this.#watch(Buffer, 'from', (_args, result) => result.length);
    this.#watch(Buffer, 'concat', (_args, result) => result.length);
  }

  restore() {
    for (const original of this.#originals) original();
  }

  #watch(on, name, count) {
    const own = Object.getOwnPropertyDescriptor(on, name);
    const original = on[name];
    if (own === undefined || original === undefined) throw new Error(`nothing to watch: ${name}`);
    const spy = this;
    Object.defineProperty(on, name, {
      ...own,
      value(...args) {
        const result = original.apply(this, args);
        spy.bytes += count(args, result);
        return result;
      },
    });
    this.#originals.push(() => Object.defineProperty(on, name, own));
  }
}
