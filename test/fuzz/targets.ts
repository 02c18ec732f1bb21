export * from './host-targets.js';
export * from './iscsi-targets.js';
export * from './nbd-targets.js';
