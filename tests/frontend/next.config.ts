import type { NextConfig } from "next";

// As create-next-app writes it, without Tailwind.
const nextConfig: NextConfig = {
  cacheComponents: true,
  partialPrefetching: true,
};

export default nextConfig;
