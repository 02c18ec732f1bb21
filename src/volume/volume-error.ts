import { ProductError } from '../base/errors.js';

/**
 * Why a volume cannot be had, as the front ends tell it apart:
 * - `invalid`: the request is wrong; `notFound`: there is no such volume, disk or path;
 * - `exists`: the volume is there in another way; `busy`: an operation on it is under way;
 * - `refused`: the volume's state or its data do not allow it;
 * - `unavailable`: the target or the daemon is away, so that a later call may succeed;
 * - `outOfRange`: the disk has another size; `unauthenticated`: CHAP failed;
 * - `denied`: the system does not permit it; `failed`: a program or a system call failed.
 */
export type VolumeFault =
  | 'invalid'
  | 'notFound'
  | 'exists'
  | 'busy'
  | 'refused'
  | 'unavailable'
  | 'outOfRange'
  | 'unauthenticated'
  | 'denied'
  | 'failed';

export class VolumeError extends ProductError {
  readonly fault: VolumeFault;

  constructor(fault: VolumeFault, message: string, options?: ErrorOptions) {
    super(`ERR_VOLUME_${fault.replace(/[A-Z]/g, '_$&').toUpperCase()}`, message, options);
    this.fault = fault;
  }
}
