/**
 * The cases of network-policy-api's conformance tests (kubernetes-sigs/network-policy-api, folder conformance, core and
 * standard features of ClusterNetworkPolicy and of the AdminNetworkPolicy and BaselineAdminNetworkPolicy before it),
 * with the verdicts that they expect. Each is one state of policies and what is probed in it; what a test patches is a
 * case of its own.
 */
import type {
  ClusterNetworkPolicyArgs,
  NetworkPolicyArgs,
  NetworkPolicyPort,
  PolicySet,
  TierAction,
} from "../../../components/policy/index.js";

export type Family = 4 | 6;

/** Pods of the tests' four namespaces, two in each. */
const pods = {
  gryffindor: "harry-potter",
  hufflepuff: "cedric-diggory",
  ravenclaw: "luna-lovegood",
  slytherin: "draco-malfoy",
} as const;

type House = keyof typeof pods;
const houses = Object.keys(pods) as House[];
const podNameLabel = "statefulset.kubernetes.io/pod-name";

type Transport = "TCP" | "UDP" | "SCTP";

/** The two ports that each pod serves, by protocol. */
const served = { TCP: [80, 8080], UDP: [53, 5353], SCTP: [9003, 9005] } as const;
const transports = ["TCP", "UDP", "SCTP"] as const;

export interface TierProbe {
  /** `house/number` */
  from: string;
  to: string;
  protocol: Transport;
  port: number;
  allowed: boolean;
}

export interface TierCase {
  name: string;
  policies: PolicySet;
  probes: TierProbe[];
}

export const tierPods = houses.flatMap((house) =>
  [0, 1].map((number) => ({ house, name: `${pods[house]}-${number}`, number })),
);

/** A pod's address, by its place in the list of pods. */
export const tierAddress = (family: Family, place: number): string =>
  family === 4 ? `10.244.0.${place + 10}` : `fd00:244::${(place + 10).toString(16)}`;

const addressOf = (family: Family, house: House, number: number): string =>
  tierAddress(family, houses.indexOf(house) * 2 + number);

const world = (family: Family): Pick<PolicySet, "endpoints" | "namespaces"> => ({
  namespaces: houses.map((house) => ({ name: house, labels: { "conformance-house": house } })),
  endpoints: tierPods.map(({ house, name }, place) => ({
    name,
    namespace: house,
    labels: { "conformance-house": house, [podNameLabel]: name },
    addresses: [tierAddress(family, place)],
  })),
});

type Direction = "ingress" | "egress";
type Tier = ClusterNetworkPolicyArgs["tier"];
type Peer = NonNullable<NonNullable<ClusterNetworkPolicyArgs["ingress"]>[number]["from"]>[number];
interface DirectedRule {
  action: TierAction;
  peer: Peer;
  ports?: NetworkPolicyPort[];
}

const inHouse = (house: House): Peer => ({ namespaceSelector: { matchLabels: { "conformance-house": house } } });
const podsOf = (house: House): Peer => ({ groupSelector: { matchLabels: { "conformance-house": house } } });
const podNamed = (house: House, number: number): Peer => ({
  namespaceSelector: { matchLabels: { "conformance-house": house } },
  groupSelector: { matchLabels: { [podNameLabel]: `${pods[house]}-${number}` } },
});

/** One state of policies, before its pods are added. */
interface CaseOfTiers {
  name: string;
  cluster: ClusterNetworkPolicyArgs[];
  networkPolicies?: NetworkPolicyArgs[];
  probes: TierProbe[];
}

/** A policy, its rules given for each direction. */
function clusterPolicy(
  name: string,
  tier: Tier,
  priority: number,
  subject: Peer,
  rules: Partial<Record<Direction, DirectedRule[]>>,
): ClusterNetworkPolicyArgs {
  const from = (rules.ingress ?? []).map(({ action, peer, ports }) => ({
    action,
    from: [peer],
    ...(ports && { ports }),
  }));
  const to = (rules.egress ?? []).map(({ action, peer, ports }) => ({ action, to: [peer], ...(ports && { ports }) }));
  const { namespaceSelector, groupSelector } = subject;
  return { name, tier, priority, subject: { namespaceSelector, groupSelector }, ingress: from, egress: to };
}

const probe = (from: string, to: string, protocol: Transport, port: number, allowed: boolean): TierProbe => ({
  from,
  to,
  protocol,
  port,
  allowed,
});

/** From the subject to another house or back, by direction. */
const towards = (direction: Direction, subject: string, other: string): [string, string] =>
  direction === "egress" ? [subject, other] : [other, subject];

/**
 * What the tests of ordered rules vary: who is subject, who is wholly allowed, denied at ports, allowed at ports only.
 */
interface Ordered {
  name: string;
  subject: House;
  everything: House;
  denied: House;
  allowed: House;
  deniedPorts: NetworkPolicyPort[];
  allowedPorts: NetworkPolicyPort[];
}

/** Rules in the order of the tests; the baseline tier's have no Pass. */
function orderedRules({ everything, denied, allowed, deniedPorts, allowedPorts }: Ordered, tier: Tier): DirectedRule[] {
  const passing = (rule: Omit<DirectedRule, "action">): DirectedRule[] =>
    tier === "Admin" ? [{ action: "Pass", ...rule }] : [];
  return [
    { action: "Allow", peer: inHouse(everything) },
    { action: "Deny", peer: inHouse(everything) },
    ...passing({ peer: inHouse(everything) }),
    { action: "Deny", peer: inHouse(denied), ports: deniedPorts },
    ...passing({ peer: inHouse(denied), ports: deniedPorts }),
    { action: "Allow", peer: inHouse(allowed), ports: allowedPorts },
    { action: "Deny", peer: inHouse(allowed) },
  ];
}

function swapped<T>(list: readonly T[], a: number, b: number): T[] {
  const copy = [...list];
  [copy[a], copy[b]] = [list[b] as T, list[a] as T];
  return copy;
}

function orderedCases(ordered: Ordered, tier: Tier, direction: Direction): CaseOfTiers[] {
  const rules = orderedRules(ordered, tier);
  const { subject, everything, denied, allowed, deniedPorts, allowedPorts } = ordered;
  const protocols = transports.filter((transport) => deniedPorts.some(({ protocol }) => protocol === transport));
  const at = (list: NetworkPolicyPort[], protocol: Transport, port: number): boolean =>
    list.some((candidate) => candidate.protocol === protocol && candidate.port === port);
  const probes = (house: House, expected: (protocol: Transport, port: number) => boolean): TierProbe[] =>
    protocols.flatMap((protocol) =>
      served[protocol].flatMap((port, index) =>
        [0, 1].map((number) => {
          const [from, to] = towards(direction, `${subject}/${index}`, `${house}/${number}`);
          return probe(from, to, protocol, port, expected(protocol, port));
        }),
      ),
    );
  const policy = (list: DirectedRule[]): ClusterNetworkPolicyArgs[] => [
    clusterPolicy("ordered", tier, 10, inHouse(subject), { [direction]: list }),
  ];
  const name = `${tier}, ${ordered.name}`;
  const denySooner = swapped(rules, 0, 1);
  const passSooner = swapped(denySooner, 0, 2);
  const cases: CaseOfTiers[] = [
    {
      name: `${name}: the first rule that matches decides`,
      cluster: policy(rules),
      probes: [
        ...probes(everything, () => true),
        ...probes(allowed, (protocol, port) => at(allowedPorts, protocol, port)),
        ...probes(denied, (protocol, port) => !at(deniedPorts, protocol, port)),
      ],
    },
    { name: `${name}: Deny before Allow`, cluster: policy(denySooner), probes: probes(everything, () => false) },
  ];
  if (tier === "Admin") {
    cases.push(
      {
        name: `${name}: Pass before Allow and Deny`,
        cluster: policy(passSooner),
        probes: probes(everything, () => true),
      },
      {
        name: `${name}: Pass before Deny at ports`,
        cluster: policy(swapped(passSooner, 3, 4)),
        probes: probes(denied, () => true),
      },
    );
  }
  return cases;
}

const single = (protocol: Transport, port: number): NetworkPolicyPort[] => [{ protocol, port }];

/** Who is who in the tests of one protocol and direction. */
const ordered: [Direction, Ordered][] = [
  ...(["egress", "ingress"] as const).flatMap((direction): [Direction, Ordered][] => [
    [
      direction,
      {
        name: `${direction} TCP`,
        subject: "gryffindor",
        everything: "ravenclaw",
        denied: "slytherin",
        allowed: "hufflepuff",
        deniedPorts: single("TCP", 80),
        allowedPorts: single("TCP", direction === "egress" ? 8080 : 80),
      },
    ],
    [
      direction,
      {
        name: `${direction} UDP`,
        subject: "hufflepuff",
        everything: "ravenclaw",
        denied: "slytherin",
        allowed: "gryffindor",
        deniedPorts: single("UDP", 5353),
        allowedPorts: single("UDP", 53),
      },
    ],
    [
      direction,
      {
        name: `${direction} SCTP`,
        subject: "ravenclaw",
        everything: "gryffindor",
        denied: "slytherin",
        allowed: "hufflepuff",
        deniedPorts: single("SCTP", 9003),
        allowedPorts: single("SCTP", 9003),
      },
    ],
  ]),
  ...(["egress", "ingress"] as const).map((direction): [Direction, Ordered] => [
    direction,
    {
      name: `both directions at once, ${direction}`,
      subject: "gryffindor",
      everything: "ravenclaw",
      denied: "slytherin",
      allowed: "hufflepuff",
      deniedPorts: [...single("TCP", 80), ...single("UDP", 53), ...single("SCTP", 9003)],
      allowedPorts: [
        ...single("TCP", direction === "egress" ? 8080 : 80),
        ...single("UDP", 5353),
        ...single("SCTP", 9003),
      ],
    },
  ]),
];

const bothWays = (a: string, b: string, protocol: Transport, port: number, allowed: boolean): TierProbe[] => [
  probe(a, b, protocol, port, allowed),
  probe(b, a, protocol, port, allowed),
];

/** Deny from and to slytherin in the admin tier, in both directions. */
const slytherin = (action: TierAction): Record<Direction, DirectedRule[]> => ({
  ingress: [{ action, peer: inHouse("slytherin") }],
  egress: [{ action, peer: inHouse("slytherin") }],
});

const slytherinPods = (action: TierAction): Record<Direction, DirectedRule[]> => {
  const rule = { action, peer: { ...inHouse("slytherin"), ...podsOf("slytherin") } };
  return { ingress: [rule], egress: [rule] };
};

const slytherinProbes = (allowed: boolean): TierProbe[] => [
  ...bothWays("slytherin/0", "gryffindor/0", "TCP", 80, allowed),
  ...bothWays("slytherin/1", "gryffindor/1", "TCP", 8080, allowed),
];

const gryffindorPods: Peer = { ...inHouse("gryffindor"), ...podsOf("gryffindor") };

function priorityCase(priority: number, allowed: boolean): CaseOfTiers {
  return {
    name: `priority ${priority} of Pass beside 50 of Deny`,
    cluster: [
      clusterPolicy("deny", "Admin", 50, gryffindorPods, slytherinPods("Deny")),
      clusterPolicy("pass", "Admin", priority, gryffindorPods, slytherinPods("Pass")),
      clusterPolicy("default", "Baseline", 10, gryffindorPods, slytherinPods("Allow")),
    ],
    probes: slytherinProbes(allowed),
  };
}

/** Admin, network policies and baseline together. */
function integrationCases(): CaseOfTiers[] {
  const allowing: NetworkPolicyArgs = {
    name: "allow-slytherin",
    namespace: "gryffindor",
    groupSelector: {},
    policyTypes: ["Ingress", "Egress"],
    ingress: [{ from: [inHouse("slytherin")] }],
    egress: [{ to: [inHouse("slytherin")] }],
  };
  const gryffindor = inHouse("gryffindor");
  const baseline = clusterPolicy("default", "Baseline", 10, gryffindor, slytherin("Deny"));
  const admin = (action: TierAction) => clusterPolicy("admin", "Admin", 10, gryffindor, slytherin(action));
  return [
    {
      name: "Deny in the admin tier comes first",
      cluster: [admin("Deny"), baseline],
      networkPolicies: [allowing],
      probes: slytherinProbes(false),
    },
    {
      name: "Pass goes on to network policies",
      cluster: [admin("Pass"), baseline],
      networkPolicies: [allowing],
      probes: slytherinProbes(true),
    },
    {
      name: "Pass goes on to the baseline where no network policy isolates",
      cluster: [admin("Pass"), baseline],
      probes: slytherinProbes(false),
    },
  ];
}

/** Policies with the same priority all apply. */
function samePriorityCase(tier: Tier): CaseOfTiers {
  const deny = (subject: House, other: House, port: number): ClusterNetworkPolicyArgs => {
    const rules: DirectedRule[] = [{ action: "Deny", peer: inHouse(other), ports: single("TCP", port) }];
    return clusterPolicy(`${subject}-${other}`, tier, 15, inHouse(subject), { ingress: rules, egress: rules });
  };
  return {
    name: `${tier}, the same priority`,
    cluster: [
      deny("gryffindor", "slytherin", 80),
      deny("gryffindor", "hufflepuff", 80),
      deny("hufflepuff", "slytherin", 8080),
    ],
    probes: [
      ...bothWays("gryffindor/0", "slytherin/0", "TCP", 80, false),
      ...bothWays("gryffindor/0", "hufflepuff/0", "TCP", 80, false),
      ...bothWays("hufflepuff/0", "slytherin/1", "TCP", 8080, false),
      ...bothWays("gryffindor/0", "slytherin/0", "TCP", 8080, true),
      ...bothWays("hufflepuff/0", "slytherin/1", "TCP", 80, true),
      ...bothWays("gryffindor/1", "ravenclaw/0", "TCP", 80, true),
    ],
  };
}

function portRangeCase(tier: Tier): CaseOfTiers {
  const rules: DirectedRule[] = [
    { action: "Allow", peer: inHouse("ravenclaw"), ports: [{ protocol: "TCP", port: 80, endPort: 8080 }] },
    { action: "Allow", peer: inHouse("hufflepuff"), ports: [{ protocol: "UDP", port: 53, endPort: 5353 }] },
    { action: "Allow", peer: inHouse("slytherin"), ports: [{ protocol: "SCTP", port: 9003, endPort: 9005 }] },
    {
      action: "Deny",
      peer: { namespaceSelector: { matchExpressions: [{ key: "conformance-house", operator: "Exists" }] } },
    },
  ];
  const subject = "gryffindor/0";
  const open = { ravenclaw: "TCP", hufflepuff: "UDP", slytherin: "SCTP" } as const;
  return {
    name: `${tier}, port ranges`,
    cluster: [clusterPolicy("port-range-rules", tier, 9, inHouse("gryffindor"), { ingress: rules, egress: rules })],
    probes: (Object.entries(open) as [House, Transport][]).flatMap(([house, protocol]) =>
      transports.flatMap((tried) =>
        served[tried].flatMap((port) => bothWays(subject, `${house}/0`, tried, port, tried === protocol)),
      ),
    ),
  };
}

/** Rules for one direction leave the other alone. */
function isolationCase(tier: Tier, direction: Direction): CaseOfTiers {
  const rules: DirectedRule[] = [{ action: "Deny", peer: inHouse("slytherin") }];
  const back: Direction = direction === "ingress" ? "egress" : "ingress";
  return {
    name: `${tier}, ${direction} rules only`,
    cluster: [clusterPolicy("isolation", tier, 20, inHouse("gryffindor"), { [direction]: rules })],
    probes: [
      probe(...towards(direction, "gryffindor/0", "slytherin/0"), "TCP", 80, false),
      probe(...towards(back, "gryffindor/0", "slytherin/0"), "TCP", 80, true),
      probe(...towards(back, "gryffindor/0", "ravenclaw/0"), "TCP", 80, true),
      probe(...towards(back, "gryffindor/0", "hufflepuff/0"), "TCP", 80, true),
    ],
  };
}

function podSelectorCase(tier: Tier): CaseOfTiers {
  const cedric: DirectedRule = { action: "Deny", peer: podNamed("hufflepuff", 0) };
  return {
    name: `${tier}, pod selectors`,
    cluster: [
      clusterPolicy("pod-selector-rules", tier, 20, podsOf("gryffindor"), {
        egress: [{ action: "Deny", peer: podsOf("ravenclaw") }, cedric],
        ingress: [{ action: "Deny", peer: podsOf("slytherin") }, cedric],
      }),
      clusterPolicy("pod-name-subject-rules", tier, 21, podNamed("ravenclaw", 0), {
        egress: [{ action: "Deny", peer: inHouse("slytherin") }],
      }),
    ],
    probes: [
      probe("gryffindor/0", "ravenclaw/0", "TCP", 80, false),
      probe("slytherin/0", "gryffindor/0", "TCP", 80, false),
      ...bothWays("gryffindor/0", "hufflepuff/0", "TCP", 80, false),
      ...bothWays("gryffindor/0", "hufflepuff/1", "TCP", 80, true),
      probe("slytherin/0", "hufflepuff/0", "TCP", 80, true),
      probe("ravenclaw/0", "slytherin/0", "TCP", 80, false),
      probe("ravenclaw/1", "slytherin/0", "TCP", 80, true),
    ],
  };
}

/** Traffic of a namespace to itself. The test sends it through a service; here to the pods behind it. */
const hairpinCase: CaseOfTiers = {
  name: "Admin, a namespace's own traffic",
  cluster: [
    clusterPolicy("hairpin-ingress-deny", "Admin", 15, inHouse("gryffindor"), {
      ingress: [{ action: "Deny", peer: inHouse("gryffindor") }],
    }),
  ],
  probes: [
    probe("gryffindor/0", "gryffindor/1", "TCP", 80, false),
    probe("gryffindor/0", "ravenclaw/1", "TCP", 80, true),
  ],
};

function networksCases(tier: Tier, family: Family): CaseOfTiers[] {
  const everywhere: DirectedRule[] = ["0.0.0.0/0", "::/0"].map((cidr) => ({
    action: "Deny",
    peer: { ipBlock: { cidr } },
  }));
  const rules: DirectedRule[] = [
    { action: "Allow", peer: { ...inHouse("slytherin"), ...podsOf("slytherin") } },
    ...everywhere,
  ];
  const single: DirectedRule[] = (["ravenclaw", "hufflepuff"] as const).map((house) => ({
    action: "Allow",
    peer: { ipBlock: { cidr: `${addressOf(family, house, 0)}/${family === 4 ? 32 : 128}` } },
  }));
  const all = (to: string, allowed: boolean): TierProbe[] =>
    transports.map((protocol) => probe("gryffindor/1", to, protocol, served[protocol][0], allowed));
  const policy = (egress: DirectedRule[]) => clusterPolicy("networks", tier, 85, gryffindorPods, { egress });
  return [
    {
      name: `${tier}, networks`,
      cluster: [policy(rules)],
      probes: [...all("ravenclaw/0", false), ...all("hufflepuff/0", false), ...all("slytherin/0", true)],
    },
    {
      name: `${tier}, networks of single addresses before all`,
      cluster: [policy([...single, ...rules])],
      probes: [
        ...all("ravenclaw/0", true),
        ...all("hufflepuff/0", true),
        ...all("ravenclaw/1", false),
        ...all("hufflepuff/1", false),
      ],
    },
  ];
}

/** Every case, for pods with addresses of one family. */
export function tierCases(family: Family): TierCase[] {
  const tiers = ["Admin", "Baseline"] as const;
  const cases: CaseOfTiers[] = [
    ...tiers.flatMap((tier) => ordered.flatMap(([direction, who]) => orderedCases(who, tier, direction))),
    priorityCase(60, false),
    priorityCase(40, true),
    ...integrationCases(),
    hairpinCase,
    ...tiers.flatMap((tier) => [
      samePriorityCase(tier),
      portRangeCase(tier),
      isolationCase(tier, "ingress"),
      isolationCase(tier, "egress"),
      podSelectorCase(tier),
      ...networksCases(tier, family),
    ]),
  ];
  return cases.map(({ name, cluster, networkPolicies = [], probes }) => ({
    name,
    policies: { ...world(family), clusterNetworkPolicies: cluster, networkPolicies },
    probes,
  }));
}
