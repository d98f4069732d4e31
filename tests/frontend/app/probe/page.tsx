"use client";

// Lets a test in a browser call what the guide prints: `window.guide`.
import { useEffect } from "react";
import * as session from "@/lib/session";
import * as browser from "@/lib/tasks-browser";

export default function Page() {
  useEffect(() => {
    Object.assign(window, { guide: { ...session, ...browser } });
  }, []);
  return <p>ready</p>;
}
