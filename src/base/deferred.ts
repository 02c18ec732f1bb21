import { invariant } from './errors.js';

/** A promise that its owner settles later. */
export type Deferred<T> = {
  readonly promise: Promise<T>;
  readonly resolve: (value: T) => void;
  readonly reject: (error: unknown) => void;
};

/** A rejection without a waiting caller does not count as an unhandled one. */
export function deferred<T>(): Deferred<T> {
  let settle: Pick<Deferred<T>, 'resolve' | 'reject'> | undefined;
  const promise = new Promise<T>((resolve, reject) => {
    settle = { resolve, reject };
  });
  promise.catch(() => undefined);
  invariant(settle, 'a promise runs its executor at once');
  return { promise, ...settle };
}
