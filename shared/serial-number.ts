/**
 * A certificate's serial number as it is named everywhere: hex digits in lower case without leading zeros, 20 octets.
 */
export const serialNumberPattern = /^(0|[1-9a-f][0-9a-f]{0,39})$/;
