// Generated from provider/schema.json by tools/build/sdkgen. Do not edit.

export type DebianImageInputs = {
  command?: string[];
  entrypoint?: string[];
  environment?: Record<string, string>;
  files?: Record<string, string>;
  packageSources?: boolean;
  packages: string[];
  registry: RegistryAccess;
  repository: string;
  securityUpdates?: boolean;
  suite: string;
  tag: string;
  workingDirectory: string;
};

/** How a registry is reached. */
export type RegistryAccess = {
  ca?: string;
  /** Secret. */
  password?: string;
  server: string;
  username?: string;
};

export type GroupDeploymentInputs = {
  containers: Container[];
  host: HostConnection;
  imageRegistryCredentials?: ImageRegistryCredential[];
  name: string;
  ports?: ContainerPort[];
  restartPolicy: string;
};

/** As in Azure Container Instances. */
export type Container = {
  command?: string[];
  environmentVariables?: EnvironmentVariable[];
  image?: string;
  imageChannel?: ImageChannel;
  name: string;
  ports?: ContainerPort[];
  resources: ResourceRequirements;
};

/** As in Azure Container Instances. */
export type EnvironmentVariable = {
  name: string;
  /** Secret. */
  secureValue?: string;
  value?: string;
};

/** A pointer in a registry that a pipeline moves. */
export type ImageChannel = {
  channel: string;
  publicKey?: string;
  repository: string;
};

/** As in Azure Container Instances. */
export type ContainerPort = {
  port: number;
  protocol: string;
};

/** As in Azure Container Instances. */
export type ResourceRequirements = {
  limits?: ResourceLimits;
  requests: ResourceRequests;
};

/** As in Azure Container Instances. */
export type ResourceLimits = {
  cpu?: number;
  memoryInGB?: number;
};

/** As in Azure Container Instances. */
export type ResourceRequests = {
  cpu: number;
  memoryInGB: number;
};

/** How a host's agent is reached. Every kind of host gives one. */
export type HostConnection = {
  certificateAuthority: string;
  clientCertificateFile: string;
  clientKeyFile: string;
  endpoint: string;
  hostId: string;
  loopbackAddress?: string;
  publishedPorts: PublishedAddress[];
};

/** Where a port of the host is reached. */
export type PublishedAddress = {
  address: string;
  port: number;
  protocol: string;
};

/** As in Azure Container Instances, with the registry's CA. */
export type ImageRegistryCredential = {
  ca?: string;
  /** Secret. */
  password?: string;
  server: string;
  username?: string;
};

export type HostImageInputs = {
  build?: HostImageBuild;
  digest?: string;
};

/** A build of the host image on this machine. Needs root and Linux. */
export type HostImageBuild = {
  keysDirectory: string;
  mode: string;
};

export type HostIntegrityInputs = {
  expected: ExpectedIntegrity;
  host: HostConnection;
};

/** What a host has to report that runs an image. A fact that the image's description does not say is absent, and is not compared. */
export type ExpectedIntegrity = {
  ipeEnforcing?: boolean;
  ipePolicy?: string;
  ipePolicyDigest?: string;
  ipePolicyVersion?: string;
  kernelVersion?: string;
  lockdown?: string;
  mode?: string;
  rootHash?: string;
  rootHashSignatureVerified?: boolean;
  secureBoot?: boolean;
  selinux?: string;
  verityMount?: string;
};

export type ImagePolicyInputs = {
  host: HostConnection;
  keys?: string[];
  name: string;
  repositories: string[];
};

export type NetworkPolicyInputs = {
  host: HostConnection;
  policy: CompiledPolicy;
};

/** All network policies of a host in their normal form, as compileNetworkPolicies gives it. What means the same is equal. */
export type CompiledPolicy = {
  endpoints: CompiledEndpoint[];
  hash: string;
  identities: CompiledIdentity[];
  version: number;
};

/** A group that a compiled network policy names. */
export type CompiledEndpoint = {
  egress: CompiledDirection;
  identity: number;
  ingress: CompiledDirection;
  name: string;
};

/** Rules of ingress or egress. */
export type CompiledDirection = {
  enforce: boolean;
  rules: CompiledRule[];
};

/** What a compiled network policy allows or denies to one side of a connection. */
export type CompiledRule = {
  action: string;
  code?: number;
  identity: number;
  portEnd: number;
  portStart: number;
  precedence: number;
  protocol: string;
};

/** Addresses that a compiled network policy names. */
export type CompiledIdentity = {
  cidr: string;
  id: number;
};

export type PatchedImageInputs = {
  channel?: string;
  database?: string;
  digest: string;
  imageSigner: SigningKey;
  layerSigner?: SigningKey;
  registry: RegistryAccess;
  repository: string;
  sealSigner?: SigningKey;
  tag?: string;
  triggers?: string[];
};

/** A key that signs, by reference; nothing secret enters the state. Give exactly one of keyFile and pkcs11Uri. */
export type SigningKey = {
  certificateFile: string;
  keyFile?: string;
  pkcs11Uri?: string;
};

export type RegistryInputs = {
  port: number;
};

export type SealedImageInputs = {
  digest: string;
  imageSigner?: SigningKey;
  layerSigner: SigningKey;
  registry: RegistryAccess;
  repository: string;
  sealSigner: SigningKey;
};

export type StateDiskInputs = {
  hypervisor?: Hypervisor;
  sizeGiB: number;
};

/** Where virtual machines run. */
export type Hypervisor = {
  uri: string;
};

export type VirtualMachineInputs = {
  acceleration: string;
  certificateAuthority: KeyPairFiles;
  clientIdentity: KeyPairFiles;
  cpus: number;
  forceDestroy: boolean;
  hypervisor?: Hypervisor;
  imageDigest: string;
  memoryMiB: number;
  powerState: string;
  publishedPorts?: PublishedPort[];
  snapshot?: string;
  stateDiskId: string;
};

/** A key pair by reference; the files never enter the state. */
export type KeyPairFiles = {
  certificateFile: string;
  keyFile: string;
};

/** A port of the host published on the hypervisor's machine. */
export type PublishedPort = {
  hostAddress: string;
  hostPort: number;
  port: number;
  protocol: string;
};

/** The inputs of each resource, by its token. */
export type Inputs = {
  "palisade:index:DebianImage": DebianImageInputs;
  "palisade:index:GroupDeployment": GroupDeploymentInputs;
  "palisade:index:HostImage": HostImageInputs;
  "palisade:index:HostIntegrity": HostIntegrityInputs;
  "palisade:index:ImagePolicy": ImagePolicyInputs;
  "palisade:index:NetworkPolicy": NetworkPolicyInputs;
  "palisade:index:PatchedImage": PatchedImageInputs;
  "palisade:index:Registry": RegistryInputs;
  "palisade:index:SealedImage": SealedImageInputs;
  "palisade:index:StateDisk": StateDiskInputs;
  "palisade:index:VirtualMachine": VirtualMachineInputs;
};
