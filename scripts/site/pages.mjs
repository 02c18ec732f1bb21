// The pages of the site in the order of its navigation, by groups. Each Markdown page is in one of them.

/** @type {readonly (readonly [group: string, pages: readonly string[]])[]} */
export const GROUPS = [
  [
    'For operators',
    [
      ...['docs/TROUBLESHOOTING.md', 'docs/OUTAGES.md', 'docs/OPERATIONS.md', 'docs/SERVICE.md'],
      ...['docs/KERNEL-DEVICES.md', 'docs/PACKAGES.md', 'SECURITY.md'],
    ],
  ],
  ['Special uses', ['docs/BOOT.md', 'docs/VOLUMES.md', 'docs/BOOT-TEST.md', 'docs/LIBRARY.md']],
  [
    'Reference',
    [
      ...['docs/CONFIGURATION.md', 'docs/CONTROL-API.md', 'docs/EVENTS-AND-METRICS.md'],
      ...['docs/block-semantics.md', 'docs/json-schema/README.md', 'docs/GLOSSARY.md'],
      'CHANGELOG.md',
    ],
  ],
  [
    'Evaluation',
    [
      ...[
        'docs/COMPARISON.md',
        'docs/CONFORMANCE.md',
        'docs/PERFORMANCE.md',
        'docs/TARGETS.md',
        'docs/TESTING.md',
        'docs/FINDINGS.md',
      ],
      'docs/rfc7143-map.md',
    ],
  ],
  [
    'For developers',
    ['CONTRIBUTING.md', 'docs/ARCHITECTURE.md', 'scripts/README.md', 'docs/adr/README.md'],
  ],
  [
    'Decisions',
    [
      'docs/adr/0001-userspace-initiator-over-nbd.md',
      'docs/adr/0002-protocol-without-io.md',
      'docs/adr/0003-session-reinstatement.md',
      'docs/adr/0004-identity-gate.md',
      'docs/adr/0005-retained-writes.md',
      'docs/adr/0006-one-process-one-thread.md',
      'docs/adr/0007-paths-with-a-fence.md',
      'docs/adr/0008-node-in-the-package.md',
      'docs/adr/0009-workers.md',
    ],
  ],
];

/** The first page of the site. */
export const FRONT_PAGE = 'README.md';
