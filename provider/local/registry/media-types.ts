/** Media types of manifests: https://github.com/opencontainers/image-spec/blob/main/media-types.md and Docker's. */
export const imageManifestType = "application/vnd.oci.image.manifest.v1+json";
export const imageIndexType = "application/vnd.oci.image.index.v1+json";

/** Manifests of one image. */
export const imageManifestTypes = [imageManifestType, "application/vnd.docker.distribution.manifest.v2+json"];
/** Lists of manifests, one for each platform. */
export const imageIndexTypes = [imageIndexType, "application/vnd.docker.distribution.manifest.list.v2+json"];
export const manifestTypes = [...imageManifestTypes, ...imageIndexTypes];
