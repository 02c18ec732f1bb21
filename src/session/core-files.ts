import { native } from '../io/native.js';

/**
 * From now on no core file of this process is made: it would hold secrets and data of disks, and
 * the program that stores it may have to wait for a disk of this process, which is ending.
 */
export function forbidCoreFiles(): void {
  native.forbidCores();
}
